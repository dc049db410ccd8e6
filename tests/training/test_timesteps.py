"""Densities of the timesteps, against their distribution functions."""

import torch

from training.model.config import TimestepDensity
from training.model.timesteps import sample_timesteps

CPU = torch.device("cpu")


def draw(density: TimestepDensity, batch: int = 200_000) -> torch.Tensor:
    return sample_timesteps(density, 1000, batch, torch.Generator().manual_seed(0), CPU)


def test_the_default_is_the_papers_uniform_density():
    assert torch.equal(
        draw(TimestepDensity()), torch.randint(1000, (200_000,), generator=torch.Generator().manual_seed(0))
    )


def test_logit_normal_quantiles():
    """t / T has the quantiles sigmoid(mean + std z): z = -1, 0, 1 at 15.87 %, 50 % and 84.13 %."""
    drawn = draw(TimestepDensity(logit_mean=1.0, logit_std=1.5)).double()
    assert drawn.min() >= 0 and drawn.max() <= 999
    shares = torch.tensor([0.158655, 0.5, 0.841345], dtype=torch.double)
    expected = 1000 * torch.sigmoid(1.0 + 1.5 * torch.tensor([-1.0, 0.0, 1.0]).double())
    assert (drawn.quantile(shares) - expected).abs().max() < 5


def test_extreme_densities_stay_in_range():
    assert (draw(TimestepDensity(logit_mean=50.0)) == 999).all()
    assert (draw(TimestepDensity(logit_mean=-50.0)) == 0).all()
