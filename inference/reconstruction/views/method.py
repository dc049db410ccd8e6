"""Reconstruct an object from views that a guide draws around it.

cameras ── draw, several guesses ──▶ views ── fit coarsely to odd ones, score on even ones ──▶ the best guess
── fit ──▶ field ── render, partly noise, denoise where the photograph does not see ──▶ views ── fit ──▶ … ──▶ field
"""

import time

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from inference.reconstruction.config import ViewsSettings
from inference.reconstruction.field.voxel_grid import VoxelGrid
from inference.reconstruction.fitted_field import FittedField
from inference.reconstruction.guidance.guide import Guide
from inference.reconstruction.monitor import Monitor
from inference.reconstruction.posed_views import PosedViews
from inference.reconstruction.views.activation import activate
from inference.reconstruction.views.fit import fit_views, to_tensors
from inference.reconstruction.views.guesses import Guess, score, subset
from inference.reconstruction.views.render_views import RenderedViews, render_views, seen_by_first

SEEN_BLUR = 1 / 64  # standard deviation of the edge between what is seen and redrawn, in sides of a picture
RENDER_PX = 256  # least side of the renders that the mesh is coloured from


def reconstruct_from_views(
    guide: Guide, guess: Guess, settings: ViewsSettings, seed: int, monitor: Monitor
) -> FittedField:
    """Fit a field to a guess's views, and refine the views where the photograph does not see.

    Args:
        guide: Draws views anew.
        guess: The views.
        settings: Levels and rounds.
        seed: Seed of the fit and of the noise of the rounds.
        monitor: Follows the progress.
    """
    views, device, begin = guess.views, guide.alphas_cumprod.device, time.monotonic()
    grid = _fit(views, settings, seed, monitor, device, "fitting")
    for number in range(settings.rounds):
        stage = f"round {number + 1} of {settings.rounds}"
        views = redrawn(guide, grid, views, settings.strength / 2**number, seed + number, monitor, stage)
        grid = _fit(views, settings, seed, monitor, device, f"{stage}, fitting")
    return fitted_field(grid, views, guess.consistency_db, {"fit": time.monotonic() - begin})


def redrawn(
    guide: Guide, grid: VoxelGrid, views: PosedViews, strength: float, seed: int, monitor: Monitor, stage: str
) -> PosedViews:
    """Return the views as the guide redraws the renders of a fit; where the photograph sees, the renders are kept.

    As in SV3D (arXiv 2403.12008, section 4.2), which refines what the input does not show.
    """
    rendered = render_views(grid, views.cameras, views.masks.shape[-1])
    seen = soft_mask(seen_by_first(rendered, views.cameras))[1:]
    drawn = guide.redraw(
        views.cameras[1:],
        rendered.pictures[1:],
        strength,
        seed,
        monitor.of_stage(f"{stage}, drawing"),
    )
    pictures = seen[..., None] * rendered.pictures[1:] + (1 - seen[..., None]) * drawn.pictures
    masks = seen * rendered.opacity[1:] + (1 - seen) * drawn.masks
    return PosedViews(
        views.cameras,
        np.concatenate([views.pictures[:1], pictures.round().astype(np.uint8)]),
        np.concatenate([views.masks[:1], masks.astype(np.float32)]),
        views.weights,
    )


def soft_mask(seen: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return masks `[N, R, R]` without specks and with soft edges, float32 in [0, 1]."""
    side = seen.shape[-1] * SEEN_BLUR
    majority = ndimage.gaussian_filter(seen.astype(np.float32), (0, 2 * side, 2 * side)) > 0.5
    soft: NDArray[np.float32] = ndimage.gaussian_filter(majority.astype(np.float32), (0, side, side))
    return soft


@torch.no_grad()
def fitted_field(grid: VoxelGrid, views: PosedViews, consistency_db: float, seconds: dict[str, float]) -> FittedField:
    """Return a fitted grid as arrays, with its renders and scores."""
    density, colours = activate(grid.raw, grid.spacing)
    shape = (grid.nodes,) * 3
    side = views.masks.shape[-1]
    as_views = render_views(grid, views.cameras, side)
    rendered = as_views if side >= RENDER_PX else render_views(grid, views.cameras, RENDER_PX)
    return FittedField(
        grid.half_side,
        density[grid.rows].view(shape).cpu().numpy(),
        (colours * 255).round().byte()[grid.rows].view(*shape, 3).cpu().numpy(),
        views,
        PosedViews(views.cameras, rendered.pictures, rendered.opacity, views.weights),
        {
            "consistency_db": consistency_db,
            "views_db": score(as_views, views),
            "photograph_db": score(first(as_views), subset(views, [0])),
        },
        seconds,
    )


def first(rendered: RenderedViews) -> RenderedViews:
    """Return the first of rendered views."""
    return RenderedViews(rendered.pictures[:1], rendered.opacity[:1], rendered.distance[:1])


def _fit(
    views: PosedViews, settings: ViewsSettings, seed: int, monitor: Monitor, device: torch.device, stage: str
) -> VoxelGrid:
    """Fit a grid, and report its progress and a preview."""

    def on_step(grid: VoxelGrid, done: int, total: int, loss: float) -> None:
        monitor.on_progress(stage, done, total, loss)
        monitor.on_preview(lambda: preview(grid, views))

    return fit_views(to_tensors(views, device), settings, seed, on_step)


def preview(grid: VoxelGrid, views: PosedViews) -> NDArray[np.uint8]:
    """Return renders of a grid from the photograph's camera and three others, side by side."""
    chosen = np.linspace(0, len(views.cameras) - 1, 4).round().astype(int)
    return np.concatenate(list(render_views(grid, views.cameras[chosen], 96).pictures), axis=1)
