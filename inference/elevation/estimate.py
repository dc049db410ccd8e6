"""Estimate the elevation of the input camera from views that the model samples a few degrees aside.

A turn of the camera about the world's vertical axis is, in the camera's own frame, a turn about an axis that leans with
the elevation: for a camera at the horizon points move sideways, for a camera above the object they circle. Views that
the model samples a few degrees aside therefore agree for one elevation only (One-2-3-45, arXiv 2306.16928). Polar turns
alone do not depend on the elevation, but they determine the depth of points, without which an azimuth turn seen from
high above is ambiguous.

The camera's distance does not matter: all cameras lie on one sphere, whose radius is the unit of length.

Array suffixes: E elevations, P points, V views, K candidates per point.
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
ELEVATIONS: Array = np.arange(-84.0, 84.1, 4.0)  # degrees; tried first
MATCH_NOISE = 1.5 / 256  # standard deviation of a match, in picture sides
OUTLIER = 3.0  # standard deviations of a match from which on it counts as wrong
MIN_DEPTH, MAX_DEPTH = 0.4, 1.6  # of a point, in camera radii: half a cube's diagonal at radius 1.5, with a margin
MIN_MOTION = 1 / 256  # picture sides; median motion of the matches
MIN_POINTS = 10
MIN_SIDE_PX = 48  # on smaller views of a painted cube SIFT never matched more than four points
MIN_AGREEMENT = 0.4  # share of matches that are no outliers; among random matches it is about 0.2
RESAMPLES = 200
CELLS = 24  # per picture side; matches in one cell have correlated errors and are resampled together
DEVIATION_FACTOR, MIN_DEVIATION_DEGREES = 0.6, 1.0  # from bootstrap to measured errors, see docs/log.md
MAX_DEVIATION_DEGREES = 12.0  # of ten estimates with 12° to 15°, three were off by more than 10°
ADVICE = "give elevation=20, in degrees above the horizon"


@dataclass(frozen=True)
class Elevation:
    """An estimated elevation.

    Attributes:
        degrees: Elevation above the horizon.
        uncertainty_degrees: Standard deviation of `degrees`.
        matches: Number of matched points that agree with it.
    """

    degrees: float
    uncertainty_degrees: float
    matches: int


def estimate_elevation(sample_views: Callable[[Sequence[Turn]], list[Image.Image]], picture: Image.Image) -> Elevation:
    """Sample views of the object in `picture` after `TURNS` and estimate the elevation of the picture's camera.

    The uncertainty covers wrong and inexact matches and single views with a wrong turn, but not a model that turns all
    views wrongly in the same way.

    Args:
        sample_views: Returns a view for each turn, of the size of `picture`.
        picture: The prepared picture, square, on white.

    Raises:
        UserError: The views are too small (then none is sampled), or do not determine the elevation.
    """
    if picture.width < MIN_SIDE_PX:
        raise UserError(
            f"views of {picture.width} × {picture.width} pixels are too small to estimate the elevation; {ADVICE}"
        )
    return fit_elevation(match_views(picture, sample_views(TURNS), TURNS), TURNS)


def fit_elevation(tracks: Array, turns: Sequence[Turn]) -> Elevation:
    """Return the elevation that agrees best with matched points.

    The cost of an elevation is the sum of squared, truncated distances between the matches and the projections of the
    points, each point at the depth on its ray that costs least. The uncertainty is from a bootstrap over cells of the
    picture and over views.

    Args:
        tracks: `[P, 1 + V, 2]`, places (column, row) of each point in the picture and the views, in picture sides; NaN
            where unmatched.
        turns: The turn of each view.

    Raises:
        UserError: There are too few matches, nothing moves, the matches contradict each other, or several elevations
            fit.
    """
    matched = np.isfinite(tracks[:, 1:, 0])
    tracks, matched = tracks[matched.any(axis=1)], matched[matched.any(axis=1)]
    if len(tracks) < MIN_POINTS:
        raise UserError(f"only {len(tracks)} points of the picture were matched in the views beside it; {ADVICE}")
    motion = np.linalg.norm(tracks[:, 1:] - tracks[:, :1], axis=2)[matched]
    if np.median(motion) < MIN_MOTION:
        raise UserError(f"no motion is visible in the views beside the picture, as of a sphere or a vase; {ADVICE}")
    errors_EPV = np.stack([reprojection_errors(tracks, turns, degrees) for degrees in ELEVATIONS])
    costs_EPV = _costs(errors_EPV, matched)
    coarse = _argmin(costs_EPV.sum(axis=(1, 2))[None])[0]
    fine = coarse + np.linspace(-4, 4, 17)
    fine_costs = [_costs(reprojection_errors(tracks, turns, degrees), matched).sum() for degrees in fine]
    best = float(_argmin(np.array(fine_costs)[None], fine)[0])
    agreeing = (reprojection_errors(tracks, turns, best) < OUTLIER * MATCH_NOISE) & matched
    if agreeing.sum() < MIN_AGREEMENT * matched.sum():
        raise UserError(f"the views beside the picture contradict each other; {ADVICE}")
    deviation = np.sqrt(np.mean((_bootstrap(costs_EPV, tracks[:, 0]) - coarse) ** 2))
    uncertainty = float(np.hypot(DEVIATION_FACTOR * deviation, MIN_DEVIATION_DEGREES))
    if uncertainty > MAX_DEVIATION_DEGREES:
        raise UserError(
            f"the views beside the picture fit too many elevations, {best:.0f}° ± {uncertainty:.0f}°; {ADVICE}"
        )
    return Elevation(best, uncertainty, int(agreeing.sum()))


def reprojection_errors(tracks: Array, turns: Sequence[Turn], degrees: float) -> Array:
    """Return the distances `[P, V]` between matches and projected points for an input camera at elevation `degrees`.

    Each point lies at the depth on its ray that fits the views best. In picture sides.
    """
    cameras = cameras_after([(0, 0, 0), *turns], degrees, radius=1.0)
    turn_V33 = cameras[1:, :, :3] @ cameras[0, :, :3].T
    step_V3 = cameras[1:, :, 3] - turn_V33 @ cameras[0, :, 3]
    focal = 1 / (2 * math.tan(math.radians(FOV_DEGREES) / 2))
    ray_P3 = np.append((tracks[:, 0] - 0.5) / [focal, -focal], np.full((len(tracks), 1), -1.0), axis=1)
    match_PV2 = (tracks[:, 1:] - 0.5) / [focal, -focal]
    matched = np.isfinite(match_PV2[..., 0])
    match_PV2 = np.where(matched[..., None], match_PV2, 0)

    # A point at inverse depth w is at ray + w step in a view, so (ray + w step)_xy + match (ray + w step)_z = 0.
    ray_PV3 = np.einsum("vij,pj->pvi", turn_V33, ray_P3)
    constant_PV2 = ray_PV3[..., :2] + match_PV2 * ray_PV3[..., 2:]
    slope_PV2 = step_V3[:, :2] + match_PV2 * step_V3[:, 2:]

    def inverse_depth(weights: Array) -> Array:
        """Return the weighted least-squares solution `[P]` over views."""
        numerator = (constant_PV2 * slope_PV2).sum(axis=-1) * weights
        denominator = (slope_PV2**2).sum(axis=-1) * weights
        depth = -numerator.sum(axis=-1) / np.maximum(denominator.sum(axis=-1), 1e-12)
        return np.clip(depth, 1 / MAX_DEPTH, 1 / MIN_DEPTH)

    def best(w_PK: Array) -> tuple[Array, Array]:
        """Return the candidate inverse depth `[P]` of least cost, and its errors `[P, V]`."""
        at_PKV3 = ray_PV3[:, None] + w_PK[..., None, None] * step_V3
        error_PKV = focal * np.linalg.norm(at_PKV3[..., :2] / -at_PKV3[..., 2:] - match_PV2[:, None], axis=-1)
        point, k = np.arange(len(w_PK)), _costs(error_PKV, matched[:, None]).sum(axis=-1).argmin(axis=1)
        return w_PK[point, k], error_PKV[point, k]

    # Start from the solution of each view alone, which an outlier in another view does not disturb.
    w_P, error_PV = best(np.stack([inverse_depth(view * matched) for view in np.eye(len(turns))], axis=1))
    for _ in range(2):
        refined_P = inverse_depth(1.0 * (matched & (error_PV < OUTLIER * MATCH_NOISE)))
        w_P, error_PV = best(np.stack([w_P, refined_P], axis=1))
    return error_PV


def _costs(errors: Array, matched: NDArray[np.bool_]) -> Array:
    """Return squared errors in standard deviations, truncated at `OUTLIER`; 0 where unmatched."""
    truncated: Array = np.minimum(errors / MATCH_NOISE, OUTLIER)
    return truncated**2 * matched


def _bootstrap(costs_EPV: Array, places: Array) -> Array:
    """Return the best elevations `[RESAMPLES]` for cells of the picture and views drawn with replacement."""
    _, cell_P = np.unique((places * CELLS).astype(int) @ [1, CELLS], return_inverse=True)
    cells, views = cell_P.max() + 1, costs_EPV.shape[2]
    rng = np.random.default_rng(0)
    cell_weights = rng.multinomial(cells, np.full(cells, 1 / cells), RESAMPLES)
    view_weights = rng.multinomial(views, np.full(views, 1 / views), RESAMPLES)
    return _argmin(np.einsum("bp,epv,bv->be", cell_weights[:, cell_P], costs_EPV, view_weights, optimize=True))


def _argmin(costs_NE: Array, degrees_E: Array = ELEVATIONS) -> Array:
    """Return the elevation of least cost `[N]`, refined by a parabola through the minimum and its neighbours."""
    lowest = np.clip(costs_NE.argmin(axis=1), 1, len(degrees_E) - 2)
    before, here, after = (costs_NE[np.arange(len(costs_NE)), lowest + i] for i in (-1, 0, 1))
    curvature = np.maximum(before - 2 * here + after, 1e-12)
    return degrees_E[lowest] + np.clip((before - after) / (2 * curvature), -1, 1) * (degrees_E[1] - degrees_E[0])
