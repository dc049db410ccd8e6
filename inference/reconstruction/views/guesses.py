"""Sample several sets of views of an object, and order them by their consistency."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from conf.options import UserError
from inference.reconstruction.config import ViewsSettings
from inference.reconstruction.guidance.guide import DrawnViews, Guide
from inference.reconstruction.monitor import Monitor
from inference.reconstruction.posed_views import PosedViews
from inference.reconstruction.views.drawn_state import load_drawn, save_drawn
from inference.reconstruction.views.fit import fit_views, to_tensors
from inference.reconstruction.views.render_views import RenderedViews, render_views
from inference.reconstruction.views.ring import ring_cameras
from rendering.cameras import Array
from rendering.psnr import psnr

SEEDS = 2**32  # values of sampling.seed; the seeds of guesses start again at 0 after the last


@dataclass(frozen=True)
class Guess:
    """Views drawn from one seed, and the PSNR, dB, with which a fit to half of them predicts the other half."""

    seed: int
    views: PosedViews
    consistency_db: float


def draw_guesses(
    guide: Guide,
    photograph: DrawnViews,
    settings: ViewsSettings,
    seed: int,
    monitor: Monitor,
    state: Path | None = None,
) -> list[Guess]:
    """Draw sets of views from several seeds; return them, the most consistent first.

    Sets that an interrupted call left in `state` are not drawn again.

    Args:
        guide: Draws the views.
        photograph: The prepared input picture, one view.
        settings: Cameras and number of guesses.
        seed: Seed of the first guess.
        monitor: Follows the progress.
        state: File in which drawn sets are kept; None: nowhere.

    Raises:
        UserError: No set has views that a shape could have, or the file is damaged.
    """
    cameras = ring_cameras(guide.input_camera, settings.elevations, settings.count)
    guesses, failures = list[Guess](), list[UserError]()
    drawn = load_drawn(state) if state and state.exists() else {}
    for number in range(settings.guesses):
        guess_seed = (seed + number) % SEEDS
        if number not in drawn:
            stage = f"drawing views, guess {number + 1} of {settings.guesses}"
            drawn[number] = guide.draw(cameras, guess_seed, monitor.of_stage(stage))
            if state:
                save_drawn(state, drawn)
        views = posed(guide.input_camera, photograph, cameras, drawn[number], settings)
        try:
            guesses.append(Guess(guess_seed, views, consistency(views, settings, seed, guide.alphas_cumprod.device)))
        except UserError as error:
            failures.append(error)
    if not guesses:
        raise failures[0]
    return sorted(guesses, key=lambda guess: -guess.consistency_db)


def posed(
    input_camera: Array, photograph: DrawnViews, cameras: Array, drawn: DrawnViews, settings: ViewsSettings
) -> PosedViews:
    """Return the photograph and drawn views with their cameras, the photograph first."""
    weights = np.ones(1 + len(cameras), dtype=np.float32)
    weights[0] = settings.photograph_weight
    return PosedViews(
        np.concatenate([input_camera[None], cameras]),
        np.concatenate([photograph.pictures, drawn.pictures]),
        np.concatenate([photograph.masks, drawn.masks]),
        weights,
    )


def consistency(views: PosedViews, settings: ViewsSettings, seed: int, device: torch.device) -> float:
    """Return the PSNR, dB, of the even drawn views as a coarse fit to the photograph and the odd ones predicts them."""
    odd, even = subset(views, [0, *range(1, len(views.cameras), 2)]), subset(views, range(2, len(views.cameras), 2))
    grid = fit_views(to_tensors(odd, device), settings, seed, levels=1)
    return score(render_views(grid, even.cameras, even.masks.shape[-1]), even)


def subset(views: PosedViews, indices: Sequence[int]) -> PosedViews:
    """Return some of the views."""
    chosen = list(indices)
    return PosedViews(views.cameras[chosen], views.pictures[chosen], views.masks[chosen], views.weights[chosen])


def score(rendered: RenderedViews, views: PosedViews) -> float:
    """Return the PSNR, dB, of renders over the pixels that the object covers in them or in the views."""
    covered = (views.masks > 0.5) | (rendered.opacity > 0.5)
    return psnr(rendered.pictures[covered], views.pictures[covered])
