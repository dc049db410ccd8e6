"""Batch the rays of fixed views, with all values that stay constant while a radiance grid is fitted to them."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from inference.reconstruction.field.rays import camera_rays
from inference.reconstruction.field.volume_rendering import Occupancy, Samples, sample_rays
from inference.reconstruction.field.voxel_grid import VoxelGrid, occupancy

RAYS = 8192  # of a batch
RAYS_TOGETHER = 2**15  # while samples are made


@dataclass(frozen=True)
class ViewTensors:
    """The arrays of `PosedViews` as tensors.

    Attributes:
        cameras_N34: Extrinsics.
        pictures_N3RR: Colours on white, in [0, 1].
        masks_NRR: Coverage.
        weights_N: Trust in each view.
    """

    cameras_N34: Tensor
    pictures_N3RR: Tensor
    masks_NRR: Tensor
    weights_N: Tensor

    def at(self, resolution: int) -> "ViewTensors":
        """Return the views with `resolution` pixels per side, or fewer if they have fewer."""
        if resolution >= self.masks_NRR.shape[-1]:
            return self
        pictures = functional.interpolate(self.pictures_N3RR, (resolution, resolution), mode="area")
        masks = functional.interpolate(self.masks_NRR[:, None], (resolution, resolution), mode="area")[:, 0]
        return ViewTensors(self.cameras_N34, pictures, masks, self.weights_N)


@dataclass(frozen=True)
class RayBatch:
    """Rays that cross active nodes of a grid.

    Attributes:
        samples: Samples near active nodes.
        rows_M8: Rows of the grid's parameters around each sample.
        weights_M8: Their trilinear weights.
        colour_R3: Colours of the pixels, on white.
        mask_R: Coverage of the pixels.
        weight_R: Trust in the rays' views.
    """

    samples: Samples
    rows_M8: Tensor
    weights_M8: Tensor
    colour_R3: Tensor
    mask_R: Tensor
    weight_R: Tensor


def ray_batches(grid: VoxelGrid, views: ViewTensors, step: float, generator: torch.Generator) -> list[RayBatch]:
    """Return the rays of all pixels that cross active nodes, shuffled, in batches.

    Args:
        grid: Decides which samples are kept.
        views: The views.
        step: Distance between samples on a ray.
        generator: Order of the rays, and the place of the samples within a step.
    """
    origins, directions = (part.flatten(0, 2) for part in camera_rays(views.cameras_N34, views.masks_NRR.shape[-1]))
    colours = views.pictures_N3RR.permute(0, 2, 3, 1).reshape(-1, 3)
    masks = views.masks_NRR.flatten()
    weights = views.weights_N[:, None, None].expand_as(views.masks_NRR).flatten()
    order = torch.randperm(len(origins), generator=generator).to(origins.device)
    occupied = active_cells(grid)
    chosen, samples = without_empty_rays(
        order,
        [
            sample_rays(origins[rays], directions[rays], grid.half_side, step, occupied, generator)
            for rays in order.split(RAYS_TOGETHER)
        ],
    )
    assert len(chosen), "active nodes lie in the silhouettes of the views"
    batches = []
    for rays, part in zip(chosen.split(RAYS), split_samples(samples, RAYS), strict=True):
        rows_M8, weights_M8 = grid.corners(part.points_M3)
        batches.append(RayBatch(part, rows_M8, weights_M8, colours[rays], masks[rays], weights[rays]))
    return batches


def active_cells(grid: VoxelGrid) -> Occupancy:
    """Return the part of space whose cells have an active node."""
    return occupancy(grid, functional.max_pool3d(grid.active[None].float(), 2, stride=1)[0].bool())


def without_empty_rays(order_R: Tensor, parts: list[Samples]) -> tuple[Tensor, Samples]:
    """Return the rays of `order_R` that have samples, and all samples in one list.

    Args:
        order_R: Indices of rays.
        parts: Samples of consecutive parts of these rays.
    """
    count_R = torch.cat([torch.bincount(part.ray_M, minlength=part.rays) for part in parts])
    chosen = order_R[count_R > 0]
    ray_M = torch.repeat_interleave(count_R[count_R > 0])
    points_M3, distance_M = torch.cat([p.points_M3 for p in parts]), torch.cat([p.distance_M for p in parts])
    return chosen, Samples(points_M3, ray_M, distance_M, parts[0].step, len(chosen))


def split_samples(samples: Samples, rays: int) -> list[Samples]:
    """Return the samples of each `rays` consecutive rays; the last part may have fewer rays."""
    firsts = range(0, samples.rays, rays)
    starts = torch.searchsorted(samples.ray_M, torch.tensor(firsts, device=samples.ray_M.device)).tolist()
    parts = []
    for first, start, end in zip(firsts, starts, [*starts[1:], len(samples.ray_M)], strict=True):
        of_part = slice(start, end)
        ray_M, count = samples.ray_M[of_part] - first, min(rays, samples.rays - first)
        part = Samples(samples.points_M3[of_part], ray_M, samples.distance_M[of_part], samples.step, count)
        parts.append(part)
    return parts
