"""Compute the losses of score Jacobian chaining (run_zero123.py of the original; Zero-1-to-3, section 3.3)."""

import torch
from torch import Tensor

from inference.reconstruction.guidance.guide import Guide
from rendering.cameras import Array


@torch.no_grad()
def denoised(
    guide: Guide, latent_BCHW: Tensor, camera: Array, timestep: int, scale: float, generator: torch.Generator
) -> tuple[Tensor, float]:
    """Return the clean latents D(z; σ) of perturbed ones, and σ (SJC, arXiv 2212.00774, equation 9).

    z = y + σn, n ~ N(0, 1). The score of y, times σ² / σ, is (D(z; σ) - y) / σ: with y in place of z it has less
    variance.

    Args:
        guide: The denoiser D.
        latent_BCHW: Clean latents y.
        camera: Extrinsics `[3, 4]` of their view.
        timestep: The timestep of σ = √(1 - ᾱ) / √ᾱ.
        scale: Scale of guidance.
        generator: Source of the noise, on the CPU.
    """
    alpha = guide.alphas_cumprod[timestep]
    sigma = ((1 - alpha) / alpha).sqrt()
    noise = torch.randn(latent_BCHW.shape, generator=generator).to(latent_BCHW)
    noisy = alpha.sqrt() * (latent_BCHW + sigma * noise)
    timesteps = torch.full((len(latent_BCHW),), timestep, device=latent_BCHW.device)
    return guide.denoise(noisy, timesteps, camera[None].repeat(len(latent_BCHW), axis=0), scale), float(sigma)


def score_loss(rendered: Tensor, clean: Tensor, sigma: float) -> Tensor:
    """Return a loss whose gradient with respect to what was rendered is minus its score, (D - y) / σ."""
    score = (clean - rendered.detach()) / sigma
    return -(score * rendered).sum()


def roughness(distances_SS: Tensor) -> Tensor:
    """Return the mean absolute difference of distances between neighbouring pixels, over both directions."""
    return (distances_SS.diff(dim=0).abs().mean() + distances_SS.diff(dim=1).abs().mean()) / 2


def emptiness(weights_M: Tensor, scale: float, samples: int) -> Tensor:
    """Return the mean of log(1 + scale · w) over all `samples`, skipped ones included (SJC, section 4).

    The code of Zero-1-to-3 has -w/2 · log(1 + scale · w), which rewards fog, and gives it no weight.
    """
    return torch.log1p(scale * weights_M).sum() / samples
