"""DDIM sampling (Song et al. 2021, arXiv 2010.02502): diffusers' steps at the timesteps of the original's code."""

from collections.abc import Callable

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from training.model.autoencoder import PatchAutoencoder
from training.model.guidance import Denoiser, guided
from training.model.zero123 import Zero123

Generators = torch.Generator | list[torch.Generator] | None  # one for the batch, or one per sample


def ddim_timesteps(steps: int, train_timesteps: int = 1000) -> Tensor:
    """Return evenly spaced timesteps, rising, offset by one: 50 of 1000 are 1, 21, …, 981.

    As in the original, a count that does not divide 1000 yields a few more than requested (75 yields 77), which
    `DDIMScheduler.set_timesteps` does not.

    Raises:
        ValueError: `steps` is below 1 or above `train_timesteps`.
    """
    if not 1 <= steps <= train_timesteps:
        raise ValueError(f"DDIM takes 1 to {train_timesteps} steps, not {steps}")
    return torch.arange(1, train_timesteps, train_timesteps // steps)


def starting_noise(model: Zero123, noise: Tensor, condition: Tensor, timestep: int) -> Tensor:
    """Return the noise that sampling starts from: `noise`, and for a model of pixels the mean of the condition.

    At its last timestep the schedule leaves √ᾱ = 7 % of the picture, from which a model of pixels reads the mean
    colour; noise of mean zero would mean a dark picture (arXiv 2305.08891, section 3.1). The mean of the target is not
    known, and that of the condition stands for it. For latents of an autoencoder the noise is that of the original.

    Args:
        model: The model to sample from.
        noise: Standard normal noise `[B, C, h, w]`.
        condition: Latents of the condition images, not scaled.
        timestep: The first timestep of the sampling.
    """
    if not isinstance(model.vae, PatchAutoencoder):
        return noise
    alpha = model.alphas_cumprod[timestep]
    mean = model.vae.config["scaling_factor"] * condition.mean(dim=(1, 2, 3), keepdim=True)
    return noise + (alpha / (1 - alpha)).sqrt() * mean.to(noise)


@torch.no_grad()
def ddim(
    predict_noise: Denoiser,
    x_T: Tensor,
    timesteps: Tensor,
    scheduler: DDIMScheduler,
    eta: float = 1.0,
    generator: Generators = None,
    on_step: Callable[[], object] = lambda: None,
) -> Tensor:
    """Return the clean latents `[B, C, h, w]` that DDIM reaches from noise (equation 12).

    Args:
        predict_noise: Denoiser, which predicts ε whatever the prediction type of `scheduler`.
        x_T: Noise `[B, C, h, w]`.
        timesteps: Evenly spaced and rising, as from `ddim_timesteps`.
        scheduler: Noise schedule, bound on the predicted clean latent (`clip_sample`) and ᾱ that the last step ends at:
            that of timestep 0, as in the original, which leaves 3 % of noise, or 1 (`set_alpha_to_one`).
        eta: 0 is deterministic, 1 has the variance of DDPM.
        generator: Source of the noise of each step, on the device of `x_T` or on the CPU, whose numbers are equal on
            every machine.
        on_step: Called after each step.
    """
    solver = DDIMScheduler.from_config(scheduler.config, prediction_type="epsilon", thresholding=False)
    length, first = len(solver.alphas_cumprod), int(timesteps[0])
    interval = int(timesteps[1]) - first if len(timesteps) > 1 else length
    clips = solver.config["clip_sample"]  # the noise must be that of the clipped latent, or guidance shifts all colours
    x = x_T
    for t in timesteps.flip(0).tolist():
        # The scheduler steps back by length // num_inference_steps, and to its final ᾱ where that is below 0.
        solver.num_inference_steps = length // interval if t > first else 1
        noise = predict_noise(x, torch.full((len(x),), t, device=x.device))
        x = solver.step(noise, t, x, eta, use_clipped_model_output=clips, generator=generator, return_dict=False)[0]
        on_step()
    return x


@torch.no_grad()
def novel_views(
    model: Zero123,
    condition: Tensor,
    embedding_BD: Tensor,
    pose_B4: Tensor,
    steps: int = 50,
    guidance: float = 3.0,
    eta: float = 1.0,
    generator: Generators = None,
) -> Tensor:
    """Return images `[B, 3, R, R]` in [-1, 1] of the objects as seen after the relative poses.

    Args:
        model: Model to sample from.
        condition: Latents of the condition images `[B, C, h, w]`, not scaled.
        embedding_BD: Image embeddings of the condition images.
        pose_B4: Pose vectors.
        steps: DDIM steps.
        guidance: Scale of classifier-free guidance.
        eta: η of DDIM.
        generator: Source of noise, as in `ddim`.
    """
    context = model.context(embedding_BD, pose_B4)
    denoiser, timesteps = guided(model, context, condition, guidance), ddim_timesteps(steps, len(model.alphas_cumprod))
    noise = randn_tensor(condition.shape, generator=generator, device=condition.device, dtype=condition.dtype)
    x_T = starting_noise(model, noise, condition, int(timesteps[-1]))
    return model.decode(ddim(denoiser, x_T, timesteps, model.scheduler, eta, generator))
