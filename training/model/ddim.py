"""DDIM sampling (Song et al. 2021, arXiv 2010.02502) with the original's arithmetic, as free functions."""

from collections.abc import Callable

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from training.model.guidance import Denoiser, guided
from training.model.zero123 import Zero123

Generators = torch.Generator | list[torch.Generator] | None  # of the batch, or one for each sample in it


def ddim_timesteps(steps: int, train_timesteps: int = 1000) -> Tensor:
    """Evenly spaced timesteps, rising, offset by one: 50 of 1000 are 1, 21, …, 981.

    As in the original, a count that does not divide 1000 yields a few more than asked for (75 yields 77).

    Raises:
        ValueError: fewer steps than one or more than there are training timesteps.
    """
    if not 1 <= steps <= train_timesteps:
        raise ValueError(f"DDIM takes 1 to {train_timesteps} steps, not {steps}")
    return torch.arange(1, train_timesteps, train_timesteps // steps)


@torch.no_grad()
def ddim(
    predict_noise: Denoiser,
    x_T: Tensor,
    timesteps: Tensor,
    alphas_cumprod: Tensor,
    eta: float = 1.0,
    generator: Generators = None,
    clip: float | None = None,
    last_alpha: Tensor | None = None,
    on_step: Callable[[], object] = lambda: None,
) -> Tensor:
    """Walk from noise `x_T` `[B, C, h, w]` to a clean latent of the same shape (equation 12).

    `timesteps` rise; `eta` 0 is deterministic, 1 has DDPM's variance; `clip` bounds the clean latent that
    each step predicts; `last_alpha` is the ᾱ that the last step ends at: that of timestep 0, as in the original,
    which leaves 3 % of noise for the autoencoder to swallow, or 1. `generator` lives on the device of `x_T` or on the
    CPU, whose noises are the same on every machine.
    """
    x = x_T
    alphas = alphas_cumprod[timesteps]
    before = torch.cat([(alphas_cumprod[0] if last_alpha is None else last_alpha.to(alphas))[None], alphas[:-1]])
    for t, alpha, alpha_before in zip(timesteps.flip(0).tolist(), alphas.flip(0), before.flip(0), strict=True):
        noise = predict_noise(x, torch.full((len(x),), t, device=x.device))
        clean = (x - (1 - alpha).sqrt() * noise) / alpha.sqrt()
        if clip is not None:
            clean = clean.clamp(-clip, clip)
        sigma = eta * ((1 - alpha_before) / (1 - alpha) * (1 - alpha / alpha_before)).sqrt()
        x = alpha_before.sqrt() * clean + (1 - alpha_before - sigma**2).sqrt() * noise
        if eta > 0:
            x = x + sigma * randn_tensor(x.shape, generator=generator, device=x.device, dtype=x.dtype)
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
    """The objects of condition latents `[B, C, h, w]` and image embeddings seen after the relative poses: pictures
    `[B, 3, R, R]` in [-1, 1]."""
    context = model.context(embedding_BD, pose_B4)
    x_T = randn_tensor(condition.shape, generator=generator, device=condition.device, dtype=condition.dtype)
    scheduler = model.scheduler.config
    latent = ddim(
        guided(model, context, condition, guidance),
        x_T,
        ddim_timesteps(steps, len(model.alphas_cumprod)),
        model.alphas_cumprod,
        eta,
        generator,
        clip=scheduler["clip_sample_range"] if scheduler["clip_sample"] else None,
        last_alpha=model.scheduler.final_alpha_cumprod,
    )
    return model.decode(latent)
