"""The activations of a radiance grid that is fitted to views."""

import math

import torch
from torch import Tensor
from torch.nn import functional

EMPTY = (-10.0, 0.0, 0.0, 0.0)  # raw density and colours of nodes that are not active
DENSITY_SCALE = 3.0  # of the raw density, whose learning rate it multiplies


def activate(raw_MC: Tensor, spacing: float) -> tuple[Tensor, Tensor]:
    """Return density σ `[M]` and colours `[M, 3]` in [0, 1] of raw values `[M, 4]`.

    σ = softplus(3 raw) / spacing, so that a raw value means the same opacity of one node's spacing on every grid.
    """
    return functional.softplus(DENSITY_SCALE * raw_MC[:, 0]) / spacing, raw_MC[:, 1:].sigmoid()


def opacity(raw_density: Tensor) -> Tensor:
    """Return the opacity of one spacing at a raw density."""
    return -torch.expm1(-functional.softplus(DENSITY_SCALE * raw_density))


def raw_density(opacity: float) -> float:
    """Return the raw density at which one spacing has an opacity."""
    return math.log(math.expm1(-math.log1p(-opacity))) / DENSITY_SCALE
