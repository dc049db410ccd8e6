"""Fit one radiance grid to the even views of an orbit and one to the odd views, and compare the two.

even views ── silhouettes, fit ──▶ field ──┬── render halfway between the views ──▶ PSNR, SSIM, LPIPS
odd views  ── silhouettes, fit ──▶ field ──┼── points of the surfaces ──▶ Chamfer distance
                                           └── render at the other half's views ──▶ PSNR of those views
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from inference.evaluation.methods.method import Pixels, resized
from inference.evaluation.metrics.metric import PictureMetric
from inference.evaluation.metrics.pixels import psnr_db
from inference.meshes.scores import chamfer_of_points, sample_seeds, surface_points
from inference.meshes.textured_mesh import plain_mesh
from inference.reconstruction.config import ViewsSettings
from inference.reconstruction.field.voxel_grid import VoxelGrid
from inference.reconstruction.guidance.silhouette import silhouette
from inference.reconstruction.posed_views import PosedViews
from inference.reconstruction.surface.extraction import extract_surface
from inference.reconstruction.views.activation import activate
from inference.reconstruction.views.fit import fit_views, side_at, to_tensors
from inference.reconstruction.views.render_views import render_views
from rendering.cameras import Array

MIN_NODES, MAX_NODES = 8, 64  # per axis of a grid
# Less smoothness than drawn views are usually fitted with, which would make inconsistent fields alike.
SETTINGS = ViewsSettings(nodes=[MAX_NODES], epochs=[12], smoothness=0.1)
POINTS = 60_000  # of each surface
SIDES = 4  # pictures of each field that people see


@dataclass(frozen=True)
class FieldComparison:
    """How well the fields of the two halves of an orbit agree.

    Attributes:
        values: Scores of the picture metrics between renders of the two fields, by name; `chamfer` of their surfaces,
            object sizes; `views_psnr_db`: PSNR of the views, rendered from the field of the half without them.
        strip: Views of four sides, and below them the renders of both fields, uint8 `[3 S, 4 S, 3]`.
    """

    values: dict[str, float]
    strip: Pixels


def compare_halves(
    pictures: Sequence[Pixels],
    cameras: Array,
    between: Array,
    metrics: Sequence[PictureMetric],
    seed: int,
) -> FieldComparison:
    """Compare the field of the even views of an orbit with that of the odd views.

    A grid has as many nodes per axis as a view has pixels, at most 64, and one level.

    Args:
        pictures: The views on white, uint8 `[R, R, 3]` each; larger ones are reduced to what the grid resolves.
        cameras: Their extrinsics `[N, 3, 4]`.
        between: Cameras `[M, 3, 4]` from which both fields are rendered and compared.
        metrics: Metrics of pictures.
        seed: Seed of the fits and of the points.

    Raises:
        UserError: No shape has the silhouettes of a half, or a field is empty.
    """
    side = min(len(pictures[0]), side_at(MAX_NODES))
    settings = replace(SETTINGS, nodes=[min(max(side, MIN_NODES), MAX_NODES)])
    views = np.stack([resized(picture, side) for picture in pictures])
    masks = np.stack([silhouette(view) for view in views])
    grids = [_fit(views[half::2], masks[half::2], cameras[half::2], seed, settings) for half in (0, 1)]
    even, odd = (list(render_views(grid, between, side).pictures) for grid in grids)
    values = {metric.name: float(np.mean(metric.score(even, odd))) for metric in metrics}
    even_points, odd_points = map(_points, grids, sample_seeds(seed))
    values["chamfer"] = chamfer_of_points(even_points, odd_points)
    at_views = [render_views(grid, cameras, side).pictures for grid in grids]
    unseen = [psnr_db(at_views[1 - number % 2][number], view) for number, view in enumerate(views)]
    values["views_psnr_db"] = float(np.mean(unseen))
    chosen = [number * len(views) // SIDES for number in range(SIDES)]
    strip = np.concatenate([np.concatenate(list(rows[chosen]), axis=1) for rows in (views, *at_views)])
    return FieldComparison(values, strip)


def _fit(
    views: NDArray[np.uint8], masks: NDArray[np.float32], cameras: Array, seed: int, settings: ViewsSettings
) -> VoxelGrid:
    posed = PosedViews(cameras, views, masks, np.ones(len(views), dtype=np.float32))
    return fit_views(to_tensors(posed, torch.device("cpu")), settings, seed)


@torch.no_grad()
def _points(grid: VoxelGrid, seed: int) -> Array:
    """Return points `[POINTS, 3]` on the surface of a field."""
    density = activate(grid.raw, grid.spacing)[0][grid.rows].view((grid.nodes,) * 3).numpy()
    return surface_points(plain_mesh(*extract_surface(density, grid.half_side)), POINTS, seed)
