"""Volume rendering along rays: sample, query a field, composite (NeRF, arXiv 2003.08934, equation 3).

The samples of all rays lie packed in one list, ray after ray, so that empty space costs nothing:

    rays ── sample_rays ──▶ Samples [M] ── field ──▶ density [M], values [M, C] ── composite ──▶ Rendered [R]

Suffixes: R rays, M samples, C channels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from inference.reconstruction.field.rays import box_crossing, cube_crossing

Field = Callable[[Tensor], tuple[Tensor, Tensor]]  # points [M, 3] -> density [M], values [M, C]


@dataclass(frozen=True)
class Occupancy:
    """The part of space that may have density.

    Attributes:
        contains: Points `[M, 3]` -> whether a point may have density, bool `[M]`.
        lowest_3: Corner of a box around all such points.
        highest_3: The opposite corner.
    """

    contains: Callable[[Tensor], Tensor]
    lowest_3: Tensor
    highest_3: Tensor


@dataclass(frozen=True)
class Samples:
    """Points on rays, packed ray after ray, each from near to far.

    Attributes:
        points_M3: Positions.
        ray_M: Index of each sample's ray, rising.
        distance_M: Distance from the ray's origin.
        step: Distance between neighbours, the length δ of each sample's interval.
        rays: Number of rays R.
    """

    points_M3: Tensor
    ray_M: Tensor
    distance_M: Tensor
    step: float
    rays: int


@dataclass(frozen=True)
class Rendered:
    """Rays rendered through a field.

    Attributes:
        values_RC: Σ w·value, not composited on a background.
        opacity_R: Σ w.
        distance_R: Σ w·distance; divide by the opacity for the mean.
        weights_M: Weight w of each sample.
    """

    values_RC: Tensor
    opacity_R: Tensor
    distance_R: Tensor
    weights_M: Tensor

    def on(self, background: Tensor) -> Tensor:
        """Return the values `[R, C]` composited on a background `[C]` or `[R, C]`."""
        return self.values_RC + (1 - self.opacity_R)[:, None] * background


def sample_rays(
    origins_R3: Tensor,
    directions_R3: Tensor,
    half_side: float,
    step: float,
    occupied: Occupancy | None = None,
    generator: torch.Generator | None = None,
) -> Samples:
    """Return samples at equal steps where rays cross the cube [-half_side, half_side]³.

    Args:
        origins_R3: Origins.
        directions_R3: Unit directions.
        half_side: Half the side of the cube.
        step: Distance δ between samples.
        occupied: Drops the samples outside of it; None keeps all.
        generator: Moves the samples of each ray by a random part of a step; None: the first lies half a step inside.
    """
    near_R, far_R = cube_crossing(origins_R3, directions_R3, half_side)
    offset_R = torch.full_like(near_R, 0.5)
    if generator is not None:
        offset_R = torch.rand(len(near_R), generator=generator, dtype=near_R.dtype).to(near_R.device)
    # Sample i of a ray lies at the distance near + (offset + i) · step, for i from first to end - 1.
    first_R, end_R = torch.zeros_like(near_R), count_samples(near_R, far_R, step, offset_R)
    if occupied is not None:
        enter_R, leave_R = box_crossing(origins_R3, directions_R3, occupied.lowest_3, occupied.highest_3)
        first_R = ((enter_R - near_R) / step - offset_R).floor().clamp(min=0)
        end_R = torch.minimum(end_R, ((leave_R - near_R) / step - offset_R).ceil() + 1)
    count_R = (end_R - first_R).clamp(min=0).long()
    ray_M = torch.repeat_interleave(count_R)
    place_M = torch.arange(len(ray_M), device=near_R.device) - (count_R.cumsum(0) - count_R)[ray_M]
    distance_M = (near_R + (offset_R + first_R) * step)[ray_M] + place_M * step
    points_M3 = torch.addcmul(origins_R3[ray_M], directions_R3[ray_M], distance_M[:, None])
    if occupied is not None:
        kept = selected(occupied.contains(points_M3))
        points_M3, ray_M, distance_M = points_M3[kept], ray_M[kept], distance_M[kept]
    return Samples(points_M3, ray_M, distance_M, step, len(origins_R3))


def count_samples(near_R: Tensor, far_R: Tensor, step: float, offset: Tensor | float = 0.5) -> Tensor:
    """Return the number `[R]` of samples at near + offset · step, near + (offset + 1) · step, … before far."""
    return ((far_R - near_R) / step - offset).ceil().clamp(min=0)


def selected(mask_M: Tensor) -> Tensor | slice:
    """Return an index of the True elements; a slice if all are True, which copies nothing."""
    return slice(None) if mask_M.all() else mask_M.nonzero()[:, 0]


def compositing_weights(density_M: Tensor, samples: Samples) -> Tensor:
    """Return the weight `[M]` of each sample on its ray.

    α = 1 - exp(-σδ), T = exp(-Σ σδ) over the samples in front, w = T·α (NeRF, equation 3; Max 1995).

    Example:
        Two samples with σδ = ln 2 have the weights 1/2 and 1/4: the ray's opacity is 3/4.
    """
    optical_M = density_M * samples.step
    # The sum runs over all rays; float32 would lose the digits of late rays.
    before_M = torch.cumsum(optical_M, dim=0, dtype=torch.float64) - optical_M
    start_R = functional.pad(before_M, (0, 1)).index_select(0, first_samples(samples.ray_M, samples.rays))
    in_front_M = before_M - start_R.index_select(0, samples.ray_M)
    return torch.exp(-in_front_M.to(density_M)) * -torch.expm1(-optical_M)


def first_samples(ray_M: Tensor, rays: int) -> Tensor:
    """Return the index of each ray's first sample, `[R]`; M for rays at the end that have none."""
    return torch.searchsorted(ray_M, torch.arange(rays, device=ray_M.device))


def accumulate(weights_M: Tensor, ray_M: Tensor, rays: int) -> Tensor:
    """Return the sum `[R]` of the weights of each ray's samples, in half the time of `accumulate_values` of ones."""
    return weights_M.new_zeros(rays).index_add(0, ray_M, weights_M)


class _WeightedSums(torch.autograd.Function):
    """Sums of weights · values over the samples of each ray; the products are not stored."""

    @staticmethod
    def forward(ctx: Any, weights_M: Tensor, values_MC: Tensor, ray_M: Tensor, rays: int) -> Tensor:
        ctx.save_for_backward(weights_M, values_MC, ray_M)
        samples, first_R = torch.arange(len(ray_M), device=ray_M.device), first_samples(ray_M, rays)
        return functional.embedding_bag(samples, values_MC, first_R, mode="sum", per_sample_weights=weights_M)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        weights_M, values_MC, ray_M = ctx.saved_tensors
        gradient_MC = gradients[0].index_select(0, ray_M)
        return (gradient_MC * values_MC).sum(dim=1), gradient_MC * weights_M[:, None], None, None


def accumulate_values(weights_M: Tensor, values_MC: Tensor, ray_M: Tensor, rays: int) -> Tensor:
    """Return the sum `[R, C]` of weights · values over each ray's samples."""
    result: Tensor = _WeightedSums.apply(weights_M, values_MC, ray_M, rays)
    return result


def composite(density_M: Tensor, values_MC: Tensor, samples: Samples) -> Rendered:
    """Composite samples front to back."""
    weights_M, rays = compositing_weights(density_M, samples), (samples.ray_M, samples.rays)
    values_RC = accumulate_values(weights_M, values_MC, *rays)
    return Rendered(
        values_RC, accumulate(weights_M, *rays), accumulate(weights_M * samples.distance_M, *rays), weights_M
    )


def render(
    field: Field,
    origins_R3: Tensor,
    directions_R3: Tensor,
    half_side: float,
    step: float,
    occupied: Occupancy | None = None,
    generator: torch.Generator | None = None,
) -> Rendered:
    """Render rays through a field; the arguments are those of `sample_rays`.

    Example:
        ball = lambda points: (40.0 * (points.norm(dim=1) < 0.3), points + 0.5)
        rendered = render(ball, origins, directions, half_side=0.5, step=0.01)
    """
    samples = sample_rays(origins_R3, directions_R3, half_side, step, occupied, generator)
    return composite(*field(samples.points_M3), samples)
