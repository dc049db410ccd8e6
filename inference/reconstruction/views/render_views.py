"""Render a fitted grid from cameras."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference.reconstruction.field.rays import camera_rays, project
from inference.reconstruction.field.volume_rendering import render
from inference.reconstruction.field.voxel_grid import VoxelGrid
from inference.reconstruction.views.activation import activate
from inference.reconstruction.views.ray_batches import active_cells
from inference.reconstruction.views.visual_hull import sample_pictures
from rendering.cameras import Array

RAYS_TOGETHER = 2**15
SAME_SURFACE = 0.03  # difference of distances up to which two points count as one


@dataclass(frozen=True)
class RenderedViews:
    """Rendered views.

    Attributes:
        pictures: Colours on white, uint8 `[N, R, R, 3]`.
        opacity: float32 `[N, R, R]`.
        distance: Mean distance of the surface from the camera, float32 `[N, R, R]`; infinite where there is none.
    """

    pictures: NDArray[np.uint8]
    opacity: NDArray[np.float32]
    distance: NDArray[np.float32]


@torch.no_grad()
def render_views(grid: VoxelGrid, cameras: Array, resolution: int) -> RenderedViews:
    """Render a grid from cameras `[N, 3, 4]` at `resolution`² pixels."""
    tensors = torch.from_numpy(np.asarray(cameras)).to(grid.raw)
    origins, directions = (part.reshape(-1, 3) for part in camera_rays(tensors, resolution))
    occupied, white = active_cells(grid), torch.ones(3, device=grid.raw.device)

    def field(points: Tensor) -> tuple[Tensor, Tensor]:
        return activate(grid.interpolate(points), grid.spacing)

    parts = []
    for rays in zip(origins.split(RAYS_TOGETHER), directions.split(RAYS_TOGETHER), strict=True):
        rendered = render(field, *rays, grid.half_side, grid.spacing, occupied)
        distance = torch.where(rendered.opacity_R > 0.5, rendered.distance_R / rendered.opacity_R, torch.inf)
        parts.append((rendered.on(white), rendered.opacity_R, distance))
    colours, opacity, distance = (torch.cat(column).cpu() for column in zip(*parts, strict=True))
    shape = (len(cameras), resolution, resolution)
    pictures = (colours * 255).round().clamp(0, 255).byte().view(*shape, 3).numpy()
    return RenderedViews(pictures, opacity.view(shape).numpy(), distance.view(shape).numpy())


def seen_by_first(views: RenderedViews, cameras: Array) -> NDArray[np.bool_]:
    """Return for each pixel whether the first view sees its surface too, `[N, R, R]`."""
    tensors = torch.from_numpy(np.asarray(cameras)).float()
    origins, directions = camera_rays(tensors, views.distance.shape[-1])
    distance = torch.from_numpy(views.distance)
    hit = distance.isfinite()
    points_P3 = (origins + distance.nan_to_num(posinf=0)[..., None] * directions)[hit]
    first = torch.where(hit[:1], distance[:1], torch.full_like(distance[:1], 9.0))[:, None]
    there_P = sample_pictures(first, project(points_P3, tensors[:1]))[0, 0]
    seen = torch.zeros_like(hit)
    seen[hit] = (points_P3 - origins[0, 0, 0]).norm(dim=1) < there_P + SAME_SURFACE
    return seen.numpy()
