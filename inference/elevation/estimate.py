"""How high the input's camera stood.

A turn of the camera about the world's vertical axis is, in the camera's own frame, a turn about an axis that leans with
the elevation: seen from the side, points move sideways; from above, they go around. Views that the model draws a few
degrees aside therefore fit together for one elevation only (One-2-3-45, arXiv 2306.16928). Polar turns alone say
nothing of it, but they tell how deep points lie, without which a turn seen from high above is ambiguous.

The distance of the camera does not matter: all cameras stand on one sphere, and its radius is the scale of everything.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from conf.options import UserError
from inference.elevation.matching import match_views
from inference.poses import Turn, cameras_after
from rendering.cameras import FOV_DEGREES, Array

TURNS: tuple[Turn, ...] = ((0, -20, 0), (0, -10, 0), (0, 10, 0), (0, 20, 0), (-10, 0, 0), (10, 0, 0))
GRID: Array = np.arange(-84.0, 84.1, 4.0)  # degrees; elevations that are tried
NOISE = 1.5 / 256  # of a match, one standard deviation in picture sides
OUTLIER = 3.0  # of these deviations: farther away a match is wrong, and how far does not matter
NEAREST, FARTHEST = 0.4, 1.6  # of a point from the camera, in radii: half a cube's diagonal at radius 1.5, and some
FEWEST_POINTS = 10
LEAST_SIDE = 48  # pixels; on smaller views of a painted cube SIFT never found more than four points again
LEAST_AGREEMENT = 0.4  # of matches within OUTLIER at the best elevation; of arbitrary ones about a fifth are
RESAMPLES = 200
CELLS = 24  # a side; neighbours in a picture err together, so the points of a cell are drawn together
SPREAD, FLOOR = 0.6, 1.0  # of the bootstrap's deviation, and degrees beside it: as measured, see docs/log.md
UNKNOWN = 12.0  # degrees; of ten estimates with 12° to 15°, three were off by more than 10°
WAY_OUT = "give elevation=20, in degrees above the horizon"


@dataclass(frozen=True)
class Elevation:
    """Degrees above the horizon, one standard deviation, and the matches that speak for it."""

    degrees: float
    uncertainty_degrees: float
    matches: int


def estimate_elevation(view: Callable[[Sequence[Turn]], list[Image.Image]], picture: Image.Image) -> Elevation:
    """From the views that `view` draws of the object in `picture` after `TURNS`.

    The uncertainty covers wrong and inexact matches and single views that turn by more or less than they were told, not
    a model that turns all of them wrongly in the same way.

    Raises:
        UserError: these views do not tell, or are too small to tell, in which case none is drawn.
    """
    if picture.width < LEAST_SIDE:
        raise UserError(f"views of {picture.width} × {picture.width} pixels are too small to tell; {WAY_OUT}")
    return fit_elevation(match_views(picture, view(TURNS), TURNS), TURNS)


def fit_elevation(tracks: Array, turns: Sequence[Turn]) -> Elevation:
    """From places `[points, 1 + views, 2]` in the picture and the views, in picture sides, NaN where unmatched.

    Each point lies somewhere on its ray from the input's camera. An elevation costs what the best place for each leaves
    of the distances to its matches, squared and cut off; the elevation that costs least is taken. Its uncertainty is
    from a bootstrap over parts of the picture and over views.

    Raises:
        UserError: too few matches, nothing moves, they contradict each other, or several elevations fit.
    """
    seen = np.isfinite(tracks[:, 1:, 0])
    tracks, seen = tracks[seen.any(axis=1)], seen[seen.any(axis=1)]
    if len(tracks) < FEWEST_POINTS:
        raise UserError(f"{len(tracks)} points of the picture were found again in views beside it, too few; {WAY_OUT}")
    moved = np.linalg.norm(tracks[:, 1:] - tracks[:, :1], axis=2)[seen]
    if np.median(moved) < 1 / 256:
        raise UserError(f"nothing is seen to turn in views beside the picture, as of a sphere or a vase; {WAY_OUT}")
    errors_EPV = np.stack([errors(tracks, turns, degrees) for degrees in GRID])
    costs_EPV = _costs(errors_EPV, seen)
    near = _least(costs_EPV.sum(axis=(1, 2))[None])[0]
    fine = near + np.linspace(-4, 4, 17)
    fine_costs = [_costs(errors(tracks, turns, degrees), seen).sum() for degrees in fine]
    best = float(_least(np.array(fine_costs)[None], fine)[0])
    agreeing = (errors(tracks, turns, best) < OUTLIER * NOISE) & seen
    if agreeing.sum() < LEAST_AGREEMENT * seen.sum():
        raise UserError(f"the views beside the picture contradict each other; {WAY_OUT}")
    deviation = np.sqrt(np.mean((_resampled(costs_EPV, tracks[:, 0]) - near) ** 2))
    uncertainty = float(np.hypot(SPREAD * deviation, FLOOR))
    if uncertainty > UNKNOWN:
        raise UserError(
            f"the views beside the picture fit too many elevations, {best:.0f}° ± {uncertainty:.0f}°; {WAY_OUT}"
        )
    return Elevation(best, uncertainty, int(agreeing.sum()))


def errors(tracks: Array, turns: Sequence[Turn], degrees: float) -> Array:
    """Distances `[points, views]`, in picture sides, between the matches and where the points would be seen if the
    input's camera stood at `degrees`; of all places on the ray the one that fits most views is taken."""
    cameras = cameras_after([(0, 0, 0), *turns], degrees, radius=1.0)
    turn_V33 = cameras[1:, :, :3] @ cameras[0, :, :3].T
    step_V3 = cameras[1:, :, 3] - turn_V33 @ cameras[0, :, 3]
    focal = 1 / (2 * math.tan(math.radians(FOV_DEGREES) / 2))
    ray_P3 = np.append((tracks[:, 0] - 0.5) / [focal, -focal], np.full((len(tracks), 1), -1.0), axis=1)
    match_PV2 = (tracks[:, 1:] - 0.5) / [focal, -focal]
    seen = np.isfinite(match_PV2[..., 0])
    match_PV2 = np.where(seen[..., None], match_PV2, 0)

    # A point at inverse depth w is at ray + w step in a view, so (ray + w step)_xy + match (ray + w step)_z = 0.
    ray_PV3 = np.einsum("vij,pj->pvi", turn_V33, ray_P3)
    fixed_PV2 = ray_PV3[..., :2] + match_PV2 * ray_PV3[..., 2:]
    slope_PV2 = step_V3[:, :2] + match_PV2 * step_V3[:, 2:]

    def inverse_depth(weights: Array) -> Array:
        """By least squares over views."""
        across = (fixed_PV2 * slope_PV2).sum(axis=-1) * weights
        along = (slope_PV2**2).sum(axis=-1) * weights
        return np.clip(-across.sum(axis=-1) / np.maximum(along.sum(axis=-1), 1e-12), 1 / FARTHEST, 1 / NEAREST)

    def best(w_PK: Array) -> tuple[Array, Array]:
        """Of several inverse depths for each point, and what they leave."""
        at_PKV3 = ray_PV3[:, None] + w_PK[..., None, None] * step_V3
        error_PKV = focal * np.linalg.norm(at_PKV3[..., :2] / -at_PKV3[..., 2:] - match_PV2[:, None], axis=-1)
        point, k = np.arange(len(w_PK)), _costs(error_PKV, seen[:, None]).sum(axis=-1).argmin(axis=1)
        return w_PK[point, k], error_PKV[point, k]

    each_PV = np.stack([inverse_depth(one * seen) for one in np.eye(len(turns))], axis=1)  # as each view alone says
    w_P, error_PV = best(each_PV)
    for _ in range(2):
        agreed_P = inverse_depth(1.0 * (seen & (error_PV < OUTLIER * NOISE)))
        w_P, error_PV = best(np.stack([w_P, agreed_P], axis=1))
    return error_PV


def _costs(errors: Array, seen: NDArray[np.bool_]) -> Array:
    """Squares of the errors in deviations, cut off: a wrong match cannot outweigh the others."""
    cut: Array = np.minimum(errors / NOISE, OUTLIER)
    return cut**2 * seen


def _resampled(costs_EPV: Array, places: Array) -> Array:
    """The best elevations `[RESAMPLES]` for samples, with replacement, of the cells of the picture and of the views."""
    _, cell_P = np.unique((places * CELLS).astype(int) @ [1, CELLS], return_inverse=True)
    cells, views = cell_P.max() + 1, costs_EPV.shape[2]
    rng = np.random.default_rng(0)
    cell_weights = rng.multinomial(cells, np.full(cells, 1 / cells), RESAMPLES)
    view_weights = rng.multinomial(views, np.full(views, 1 / views), RESAMPLES)
    return _least(np.einsum("bp,epv,bv->be", cell_weights[:, cell_P], costs_EPV, view_weights, optimize=True))


def _least(costs: Array, degrees: Array = GRID) -> Array:
    """Where costs `[N, elevations]` are least: the lowest of them, and a parabola through it and its neighbours."""
    lowest = np.clip(costs.argmin(axis=1), 1, len(degrees) - 2)
    before, here, after = (costs[np.arange(len(costs)), lowest + i] for i in (-1, 0, 1))
    bend = np.maximum(before - 2 * here + after, 1e-12)
    return degrees[lowest] + np.clip((before - after) / (2 * bend), -1, 1) * (degrees[1] - degrees[0])
