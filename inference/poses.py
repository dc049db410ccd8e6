"""Turns of the camera around the object: what a user asks for, as degrees; what the model takes, as its pose vector."""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from conf.options import UserError
from rendering.cameras import (
    Array,
    camera_centre,
    cartesian_to_spherical,
    look_at_origin,
    pose_vector,
    spherical_to_cartesian,
)
from training.model.conditioning import PoseVector

MOST_POSES = 1000
MOST_DEGREES = 36_000.0  # of one turn
Turn = tuple[float, float, float]  # [Δpolar, Δazimuth, Δradius]: degrees, degrees, object sizes
GRID_DEGREES = 30.0  # how far above and below the input the rows of a grid lie
PLAIN_RADIUS = 1.85  # object sizes; the mean of the training renders, taken for that of the input where it is unknown


def parse_turns(poses: Sequence[Any], orbit: int, grid: str, cameras: str, input_camera: int) -> list[Turn]:
    """The turns that were asked for, in one of the four ways.

    Raises:
        UserError: none or several were asked for, or what was asked for is no turn.
    """
    asked = [
        name for name, given in (("poses", poses), ("orbit", orbit), ("grid", grid), ("cameras", cameras)) if given
    ]
    if len(asked) != 1:
        raise UserError(
            f"give one of poses, orbit, grid and cameras, not {' and '.join(asked) or 'none'}: "
            "poses=[[20,45,0]], orbit=24, grid=3x8 or cameras=cameras.npy"
        )
    if orbit:
        return orbit_turns(orbit)
    if grid:
        return grid_turns(grid)
    if cameras:
        return camera_turns(read_cameras(cameras), input_camera, cameras)
    return validate_turns(poses)


def validate_turns(poses: Sequence[Any]) -> list[Turn]:
    """The same, once they are known to be triples of sensible numbers, and not too many.

    Raises:
        UserError: they are not, or one leads through the object's middle.
    """
    _bounded(len(poses), "poses")
    for pose in poses:
        numbers = isinstance(pose, (list, tuple)) and len(pose) == 3 and all(isinstance(x, (int, float)) for x in pose)
        if not numbers or not all(abs(x) <= MOST_DEGREES for x in pose):
            raise UserError(f"poses: {pose} is no [Δpolar, Δazimuth, Δradius] in degrees, degrees and object sizes")
        if pose[2] <= -PLAIN_RADIUS:
            raise UserError(
                f"poses: after {pose} the camera would have passed the object's middle, {PLAIN_RADIUS} sizes away"
            )
    return [(float(polar), float(azimuth), float(radius)) for polar, azimuth, radius in poses]


def orbit_turns(views: int) -> list[Turn]:
    """Once around, counter-clockwise from the input's own place."""
    _bounded(views, "orbit")
    return [(0.0, 360.0 * i / views, 0.0) for i in range(views)]


def grid_turns(grid: str) -> list[Turn]:
    """ "3x8": rows from above the input to below it, each of them once around."""
    found = re.fullmatch(r"(\d{1,4})[x×](\d{1,4})", grid)
    if not found:
        raise UserError(f"grid={grid} is no ROWSxCOLUMNS, as 3x8")
    rows, columns = int(found[1]), int(found[2])
    _bounded(rows * columns, "grid")
    polars = np.linspace(-GRID_DEGREES, GRID_DEGREES, rows) if rows > 1 else np.zeros(1)
    return [(float(polar), 360.0 * i / columns, 0.0) for polar in polars for i in range(columns)]


def camera_turns(cameras: Array, input_camera: int, name: str) -> list[Turn]:
    """From camera `input_camera` of `[N, 3, 4]` (world→camera) to each of the others."""
    _bounded(len(cameras) - 1, f"cameras: {name} has one for the input, and of others")
    if not 0 <= input_camera < len(cameras):
        raise UserError(f"input_camera={input_camera} is outside 0..{len(cameras) - 1}, the cameras in {name}")
    places = [cartesian_to_spherical(centre) for centre in camera_centre(cameras)]
    polar, azimuth, radius = places[input_camera]
    return validate_turns(
        [
            (math.degrees(p - polar), (math.degrees(a - azimuth) + 180) % 360 - 180, r - radius)
            for i, (p, a, r) in enumerate(places)
            if i != input_camera
        ]
    )


def camera_elevation(cameras: str, input_camera: int) -> float:
    """Return how high camera `input_camera` of a file stands: degrees above the horizon.

    Raises:
        UserError: as `read_cameras`.
    """
    polar, _, _ = cartesian_to_spherical(camera_centre(read_cameras(cameras))[input_camera])
    return 90 - math.degrees(polar)


def read_cameras(path: str) -> Array:
    """Extrinsics `[N, 3, 4]`, world→camera, of an .npy file as the view shards hold, or a list of them in JSON."""
    try:
        if path.endswith(".npy"):
            cameras = np.load(path, allow_pickle=False)
        else:
            cameras = np.array(json.loads(Path(path).read_text()), dtype=np.float64)
    except FileNotFoundError:
        raise UserError(f"cameras: there is no file {path}") from None
    except (ValueError, OSError, TypeError, EOFError, MemoryError, OverflowError, RecursionError) as error:
        raise UserError(f"cameras: {path} is neither an .npy file nor a list in JSON of 3×4 matrices") from error
    if cameras.ndim != 3 or cameras.shape[1:] != (3, 4) or cameras.dtype.kind not in "fiu":
        raise UserError(f"cameras: {path} holds {cameras.dtype} {list(cameras.shape)}, not matrices [N, 3, 4]")
    cameras = cameras.astype(np.float64)
    rotations = cameras[:, :, :3]
    if not np.isfinite(cameras).all() or not np.allclose(rotations @ rotations.swapaxes(1, 2), np.eye(3), atol=1e-3):
        raise UserError(f"cameras: {path} holds matrices that are no world→camera [R|t] with R a rotation")
    return cameras


def pose_vectors(turns: Sequence[Turn], kind: PoseVector, elevation_degrees: float | None) -> Array:
    """What the model is told `[N, 4]`. Stable-Zero123's wants to know how high the input's camera stood.

    Raises:
        UserError: it does, and nobody says.
    """
    polar, azimuth, radius = np.array(turns, dtype=np.float64).reshape(-1, 3).T
    vectors = np.stack(
        [pose_vector(*turn) for turn in zip(np.radians(polar), np.radians(azimuth), radius, strict=True)]
    )
    if kind is PoseVector.stable_zero123:
        if elevation_degrees is None:
            raise UserError(
                "this checkpoint has Stable-Zero123's pose vector, which needs to know how high the input's camera "
                "stood: give elevation=20, in degrees above the horizon"
            )
        vectors[:, 3] = math.radians(90 - elevation_degrees)
    return vectors


def cameras_after(turns: Sequence[Turn], elevation_degrees: float, radius: float = PLAIN_RADIUS) -> Array:
    """Extrinsics `[N, 3, 4]` after each turn of an input camera at azimuth 0, `elevation_degrees` above the horizon
    and `radius` object sizes away; past a pole the camera comes down on the other side."""
    input_polar = 90 - elevation_degrees
    return np.stack(
        [
            look_at_origin(
                spherical_to_cartesian(math.radians(input_polar + polar), math.radians(azimuth), radius + away)
            )
            for polar, azimuth, away in turns
        ]
    )


def _bounded(views: int, name: str) -> None:
    if not 1 <= views <= MOST_POSES:
        raise UserError(f"{name}: give 1 to {MOST_POSES}, not {views}")
