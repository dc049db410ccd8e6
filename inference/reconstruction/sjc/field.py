"""Represent the radiance field of score Jacobian chaining: density and canvas values on two voxel grids."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.reconstruction.field.rays import camera_rays, cube_crossing
from inference.reconstruction.field.volume_rendering import (
    accumulate,
    accumulate_values,
    compositing_weights,
    count_samples,
    sample_rays,
    selected,
)
from inference.reconstruction.field.voxel_grid import VoxelGrid, gather, occupancy
from inference.reconstruction.sjc.settings import SjcSettings
from rendering.cameras import Array

STEP_SPACINGS = 0.5  # distance between samples, in spacings of the grid
MIN_WEIGHT = 1e-4  # of a sample whose values are computed
MIN_OPACITY = 1e-6  # of a sample; cells whose nodes are all below are skipped
BACKGROUND_DISTANCE = 10.0  # of the background in the expected distance


@dataclass(frozen=True)
class Canvases:
    """Rendered canvases `[B, K, S, S]`, expected distances `[B, S, S]` and opacities `[B, S, S]`.

    Attributes:
        weights_M: Weights of all samples that were not skipped.
        samples: Number of samples, with those that were skipped.
    """

    values: Tensor
    distances: Tensor
    opacities: Tensor
    weights_M: Tensor
    samples: int


class SjcField(nn.Module):
    """σ = softplus(raw · exp(scale) + shift); values are as they are for latents, and in [-1, 1] for pixels.

    Args:
        settings: Size of the grid and shift of the density.
        background: Canvas values `[K]` behind the object.
        bounded: Whether canvases are pixels.
        generator: Source of the values that the optimisation starts from, N(0, 1). The density starts at 0.
    """

    background: Tensor

    def __init__(self, settings: SjcSettings, background: Tensor, bounded: bool, generator: torch.Generator) -> None:
        super().__init__()
        self.shift, self.bounded = settings.density_shift, bounded
        self.density = VoxelGrid(settings.nodes, settings.half_side, [0.0])
        self.values = VoxelGrid(settings.nodes, settings.half_side, [0.0] * len(background))
        with torch.no_grad():
            self.values.raw.copy_(torch.randn(self.values.raw.shape, generator=generator))
        self.scale = nn.Parameter(torch.tensor(math.log(settings.density_scale)))
        self.register_buffer("background", background)
        self.to(background.device)

    @property
    def step(self) -> float:
        """Distance between the samples of a ray."""
        return STEP_SPACINGS * self.density.spacing

    def sigma(self, raw: Tensor) -> Tensor:
        """Return the density σ of raw values."""
        return functional.softplus(raw * self.scale.exp() + self.shift)

    @torch.no_grad()
    def occupied_cells(self) -> Tensor:
        """Return the cells `[N - 1, N - 1, N - 1]` in which a sample has an opacity of at least `MIN_OPACITY`."""
        sigma = self.sigma(self.density.dense())
        for axis, cells in enumerate(side - 1 for side in sigma.shape):
            sigma = torch.maximum(sigma.narrow(axis, 0, cells), sigma.narrow(axis, 1, cells))
        return sigma * self.step > MIN_OPACITY

    def render(self, cameras: Array, size: int, occupied: Tensor | None = None) -> Canvases:
        """Render canvases of `size`² pixels from cameras `[B, 3, 4]`.

        Args:
            cameras: Extrinsics, world→camera.
            size: Side of the canvas.
            occupied: Result of `occupied_cells`; None skips nothing.
        """
        origins, directions = camera_rays(torch.from_numpy(np.asarray(cameras)).to(self.background), size)
        lookup = None if occupied is None or occupied.all() else occupancy(self.density, occupied)
        half_side = self.density.half_side
        rays = origins.reshape(-1, 3), directions.reshape(-1, 3)
        samples = sample_rays(*rays, half_side, self.step, lookup)
        rows_M8, shares_M8 = self.density.corners(samples.points_M3)  # both grids have the same nodes
        weights_M = compositing_weights(self.sigma(gather(self.density.raw, rows_M8, shares_M8)[:, 0]), samples)
        kept = selected(weights_M.detach() > MIN_WEIGHT)
        values = gather(self.values.raw, rows_M8[kept], shares_M8[kept])
        values = values.sigmoid() * 2 - 1 if self.bounded else values
        values_RK = accumulate_values(weights_M[kept], values, samples.ray_M[kept], samples.rays)
        opacity_R = accumulate(weights_M, samples.ray_M, samples.rays)
        distance_R = accumulate(weights_M * samples.distance_M, samples.ray_M, samples.rays)
        clear_R = 1 - opacity_R
        values_RK = values_RK + clear_R[:, None] * self.background
        shape = (len(cameras), size, size)
        return Canvases(
            values_RK.view(*shape, -1).permute(0, 3, 1, 2),
            (distance_R + clear_R * BACKGROUND_DISTANCE).view(shape),
            opacity_R.view(shape),
            weights_M,
            int(count_samples(*cube_crossing(*rays, half_side), self.step).long().sum()),
        )
