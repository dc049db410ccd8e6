"""Batch the rays of fixed views, with all values that stay constant while a radiance grid is fitted to them."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from inference.reconstruction.field.rays import camera_rays
from inference.reconstruction.field.volume_rendering import Occupancy, Samples, sample_rays
from inference.reconstruction.field.voxel_grid import VoxelGrid, cell_lookup

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
    occupied = occupancy(grid)
    crossing = torch.cat(
        [
            _crossing(grid, *part, step, occupied)
            for part in zip(origins.split(RAYS_TOGETHER), directions.split(RAYS_TOGETHER), strict=True)
        ]
    ).nonzero()[:, 0]
    order = crossing[torch.randperm(len(crossing), generator=generator).to(crossing.device)]
    batches = []
    for chosen in order.split(RAYS):
        samples = sample_rays(origins[chosen], directions[chosen], grid.half_side, step, occupied, generator)
        rows_M8, weights_M8 = grid.corners(samples.points_M3)
        batches.append(RayBatch(samples, rows_M8.int(), weights_M8, colours[chosen], masks[chosen], weights[chosen]))
    return batches


def occupancy(grid: VoxelGrid) -> Occupancy:
    """Return a function that tells for points `[M, 3]` whether a node of their cell is active."""
    return cell_lookup(grid, functional.max_pool3d(grid.active[None].float(), 2, stride=1)[0].bool())


def _crossing(grid: VoxelGrid, origins_R3: Tensor, directions_R3: Tensor, step: float, occupied: Occupancy) -> Tensor:
    samples = sample_rays(origins_R3, directions_R3, grid.half_side, step, occupied)
    return torch.bincount(samples.ray_M, minlength=samples.rays) > 0
