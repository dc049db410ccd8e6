"""Draw the timesteps of training: uniform as in the paper, or more often at high noise levels."""

import torch
from torch import Tensor

from training.model.config import TimestepDensity


def sample_timesteps(
    density: TimestepDensity, count: int, batch: int, generator: torch.Generator | None, device: torch.device
) -> Tensor:
    """Return timesteps `[B]`, integers in [0, count).

    Args:
        density: Uniform, or the logit-normal density of Esser et al. 2024 (arXiv 2403.03206, equation 19).
        count: Timesteps T of the noise schedule.
        batch: Number of samples B.
        generator: Source of randomness, on `device`.
        device: Device of the result.
    """
    if density.logit_mean is None:
        return torch.randint(count, (batch,), generator=generator, device=device)
    normal = torch.randn(batch, generator=generator, device=device)
    share = torch.sigmoid(density.logit_mean + density.logit_std * normal)
    return (count * share).long().clamp(max=count - 1)
