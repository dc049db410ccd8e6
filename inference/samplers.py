"""Samplers, from noise to clean latents: DDIM at the original's timesteps, and the faster solvers of diffusers."""

from collections.abc import Callable, Sequence

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from inference.config import Sampler, Sampling
from training.model.ddim import ddim, ddim_timesteps, starting_noise
from training.model.guidance import Denoiser
from training.model.zero123 import Zero123

Solver = DPMSolverMultistepScheduler | EulerDiscreteScheduler
# Steps of equal length in log(√ᾱ / √(1 - ᾱ)); their error is about a tenth of that of equal steps in t
# (arXiv 2206.00927).
EQUAL_LOG_SNR_STEPS = {"use_lu_lambdas": True}
OnStep = Callable[[], object]


def sample(
    model: Zero123,
    predict_noise: Denoiser,
    condition: Tensor,
    seeds: Sequence[int],
    sampling: Sampling,
    on_step: OnStep,
) -> Tensor:
    """Return clean, scaled latents `[B, C, h, w]`.

    Args:
        model: Gives the noise schedule and the shape of its latents.
        predict_noise: The guided model.
        condition: Latents of the condition images `[B, C, h, w]`, not scaled.
        seeds: The seed of each latent's noise. It is drawn on the CPU, so that a seed means the same picture on every
            device.
        sampling: Sampler and number of steps.
        on_step: Called after each of the `steps_of(model, sampling)` steps.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    shape = (len(seeds), model.latent_channels, model.latent_size, model.latent_size)
    noise = randn_tensor(shape, generator=generators, device=model.device, dtype=torch.float32)
    alphas, config, schedule = model.alphas_cumprod, model.scheduler.config, noise_schedule(model.scheduler)
    clip = config["clip_sample_range"] if config["clip_sample"] else None
    match sampling.sampler:
        case Sampler.ddim:
            timesteps = ddim_timesteps(sampling.steps, len(alphas))
            x_T = starting_noise(model, noise, condition, int(timesteps[-1]))
            return ddim(predict_noise, x_T, timesteps, model.scheduler, sampling.eta, generators, on_step)
        case Sampler.dpm_solver:
            solver: Solver = DPMSolverMultistepScheduler(**schedule, **EQUAL_LOG_SNR_STEPS)
        case Sampler.euler:
            solver = EulerDiscreteScheduler(**schedule)
    if clip is not None:
        predict_noise = clipped(predict_noise, alphas, clip)
    x_T = starting_noise(model, noise, condition, solver.config["num_train_timesteps"] - 1)
    return solve(predict_noise, x_T, solver, sampling.steps, on_step)


def steps_of(model: Zero123, sampling: Sampling) -> int:
    """Return the number of steps that a sampler takes; DDIM rounds it as the original does."""
    if sampling.sampler is Sampler.ddim:
        return len(ddim_timesteps(sampling.steps, len(model.alphas_cumprod)))
    return sampling.steps


def noise_schedule(scheduler: DDIMScheduler) -> dict[str, object]:
    """Return the schedule of a checkpoint as arguments of diffusers' solvers.

    Timesteps are spaced from the last one. With few steps, those of DDIM begin where the picture already shows through
    the noise (arXiv 2305.08891, section 3.3). The last timestep of a schedule with `rescale_betas_zero_snr` is left
    out: there no clean latent follows from the predicted noise.
    """
    betas = scheduler.betas[scheduler.alphas_cumprod > 0].tolist()
    return {
        "num_train_timesteps": len(betas),
        "trained_betas": betas,
        "prediction_type": "epsilon",
        "timestep_spacing": "trailing",
    }


@torch.no_grad()
def solve(predict_noise: Denoiser, x_T: Tensor, solver: Solver, steps: int, on_step: OnStep) -> Tensor:
    """Integrate from noise `x_T` `[B, C, h, w]` to clean latents with a deterministic solver.

    DPM-Solver++(2M) (arXiv 2211.01095), or Euler's method on the probability flow (arXiv 2206.00364).
    """
    solver.set_timesteps(steps, device=x_T.device)
    x = x_T * solver.init_noise_sigma
    for t in solver.timesteps:
        noise = predict_noise(solver.scale_model_input(x, t), t.long().expand(len(x)))
        x = solver.step(noise, t, x, return_dict=False)[0]
        on_step()
    return x


def clipped(predict_noise: Denoiser, alphas_cumprod: Tensor, clip: float) -> Denoiser:
    """Return a denoiser whose clean prediction is clamped to [-clip, clip], as models of pixels need."""

    def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
        alpha = alphas_cumprod[timesteps][:, None, None, None]
        noise = predict_noise(noisy, timesteps)
        clean = (noisy - (1 - alpha).sqrt() * noise) / alpha.sqrt()
        return (noisy - alpha.sqrt() * clean.clamp(-clip, clip)) / (1 - alpha).sqrt()

    return predict
