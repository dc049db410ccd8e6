"""Convert camera turns, as options give them in degrees, to pose vectors and camera matrices."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from conf.options import UserError
from inference.config import ViewsConfig
from rendering.cameras import (
    Array,
    camera_centre,
    cartesian_to_spherical,
    invalid_cameras,
    look_at_origin,
    pose_vector,
    spherical_to_cartesian,
)
from training.model.config import PoseVector

Config = TypeVar("Config", bound=ViewsConfig)
MAX_POSES = 1000
MAX_TURN_DEGREES = 36_000.0
Turn = tuple[float, float, float]  # [Δpolar, Δazimuth, Δradius]: degrees, degrees, object sizes
GRID_DEGREES = 30.0  # between the input's elevation and the first and last row of a grid
DEFAULT_RADIUS = 1.85  # object sizes; mean of the training renders, assumed for an input of unknown camera


def parse_turns(poses: Sequence[Any], orbit: int, grid: str, cameras: str, input_camera: int) -> list[Turn]:
    """Return the turns that exactly one of `poses`, `orbit`, `grid` and `cameras` asks for.

    Raises:
        UserError: None or several of them are given, or the one given is not valid; or `input_camera` is given without
            `cameras`.
    """
    given = [
        name for name, value in (("poses", poses), ("orbit", orbit), ("grid", grid), ("cameras", cameras)) if value
    ]
    if len(given) != 1:
        raise UserError(
            f"give one of poses, orbit, grid and cameras, not {' and '.join(given) or 'none'}: "
            "poses=[[20,45,0]], orbit=24, grid=3x8 or cameras=cameras.npy"
        )
    if input_camera and not cameras:
        raise UserError(f"input_camera={input_camera}: is the index of a camera in cameras=…; give cameras too")
    if orbit:
        return orbit_turns(orbit)
    if grid:
        return grid_turns(grid)
    if cameras:
        return camera_turns(read_cameras(cameras), input_camera, cameras)
    return validate_turns(poses)


def validate_turns(poses: Sequence[Any], radius: float = DEFAULT_RADIUS) -> list[Turn]:
    """Return `poses` as turns.

    Args:
        poses: `[N, 3]`.
        radius: Distance of the input camera, object sizes.

    Raises:
        UserError: There are too many, one is not three finite numbers, or one moves the camera through the object.
    """
    if not isinstance(poses, (list, tuple)):
        raise UserError(f"poses: {poses} is not a list of [Δpolar, Δazimuth, Δradius]")
    _check_number(len(poses), "poses")
    for pose in poses:
        is_triple = isinstance(pose, (list, tuple)) and len(pose) == 3
        if not is_triple or not all(isinstance(x, (int, float)) and abs(x) <= MAX_TURN_DEGREES for x in pose):
            raise UserError(f"poses: {pose} is not [Δpolar, Δazimuth, Δradius] in degrees, degrees and object sizes")
        if pose[2] <= -radius:
            raise UserError(
                f"poses: {pose} moves the camera through the object's centre; give Δradius above -{radius:g}"
            )
    return [(float(polar), float(azimuth), float(radius)) for polar, azimuth, radius in poses]


def orbit_turns(views: int) -> list[Turn]:
    """Return turns in a circle around the object, counter-clockwise from the input camera."""
    _check_number(views, "orbit")
    return [(0.0, 360.0 * i / views, 0.0) for i in range(views)]


def grid_turns(grid: str) -> list[Turn]:
    """Return the turns of a grid such as "3x8": rows from above the input camera to below it, each row an orbit."""
    match = re.fullmatch(r"(\d{1,4})[x×](\d{1,4})", grid)
    if not match:
        raise UserError(f"grid={grid}: must be ROWSxCOLUMNS, such as 3x8")
    rows, columns = int(match[1]), int(match[2])
    _check_number(rows * columns, "grid")
    polars = np.linspace(-GRID_DEGREES, GRID_DEGREES, rows) if rows > 1 else np.zeros(1)
    return [(float(polar), 360.0 * i / columns, 0.0) for polar in polars for i in range(columns)]


def camera_turns(cameras: Array, input_camera: int, name: str) -> list[Turn]:
    """Return the turns from one camera to each of the others.

    Args:
        cameras: `[N, 3, 4]`, world→camera.
        input_camera: Index of the input's camera.
        name: Name of the cameras' file, for errors.
    """
    _check_number(len(cameras) - 1, f"cameras={name}: one is the input's; for the others")
    if not 0 <= input_camera < len(cameras):
        raise UserError(f"input_camera={input_camera}: must be between 0 and {len(cameras) - 1}, the last in {name}")
    places = [cartesian_to_spherical(centre) for centre in camera_centre(cameras)]
    polar, azimuth, radius = places[input_camera]
    turns = [
        (math.degrees(p - polar), (math.degrees(a - azimuth) + 180) % 360 - 180, r - radius)
        for i, (p, a, r) in enumerate(places)
        if i != input_camera
    ]
    return validate_turns(turns, radius)


@dataclass(frozen=True)
class InputPosition:
    """Position of the input camera beside its elevation, which is estimated where nothing else gives it.

    Attributes:
        azimuth_degrees: Azimuth, from +x towards +y.
        radius: Distance from the object's centre, object sizes.
    """

    azimuth_degrees: float = 0.0
    radius: float = DEFAULT_RADIUS


DEFAULT_POSITION = InputPosition()


def input_position(cameras: str, input_camera: int) -> InputPosition:
    """Return the position of camera `input_camera` in the file `cameras`; the default without a file.

    Raises:
        UserError: As `read_cameras`.
    """
    if not cameras:
        return DEFAULT_POSITION
    _, azimuth, radius = cartesian_to_spherical(camera_centre(read_cameras(cameras))[input_camera])
    return InputPosition(round(math.degrees(azimuth), 9), round(radius, 9))


def camera_elevation(cameras: str, input_camera: int) -> float:
    """Return the elevation of camera `input_camera` in the file `cameras`, degrees above the horizon.

    Raises:
        UserError: As `read_cameras`.
    """
    polar, _, _ = cartesian_to_spherical(camera_centre(read_cameras(cameras))[input_camera])
    return 90 - math.degrees(polar)


def checked_elevation(config: Config) -> Config:
    """Return `config` with the elevation of the input camera from `cameras`, if it would be estimated otherwise.

    Raises:
        UserError: `config.elevation` is not valid, or the file of cameras cannot be read.
    """
    given_elevation(config.elevation)
    if not config.cameras or config.elevation != "estimate":
        return config
    return replace(config, elevation=str(round(camera_elevation(config.cameras, config.input_camera), 9)))


def given_elevation(elevation: str) -> float | None:
    """Return the option `elevation` in degrees above the horizon, None for `estimate` and `none`.

    Raises:
        UserError: It is another word, or not an angle.
    """
    if elevation in ("estimate", "none"):
        return None
    try:
        degrees = float(elevation)
    except ValueError:
        degrees = math.nan
    if not -90 <= degrees <= 90:
        raise UserError(f"elevation={elevation}: must be estimate, none, or -90 to 90 degrees above the horizon")
    return degrees


def read_cameras(path: str) -> Array:
    """Return the extrinsics `[N, 3, 4]`, world→camera, of an .npy file as in view shards, or of a JSON list.

    Raises:
        UserError: The file cannot be read, or holds no such matrices.
    """
    try:
        if path.endswith(".npy"):
            cameras = np.load(path, allow_pickle=False)
        else:
            cameras = np.array(json.loads(Path(path).read_text()), dtype=np.float64)
    except FileNotFoundError:
        raise UserError(f"cameras={path}: there is no such file") from None
    except (ValueError, OSError, TypeError, EOFError, MemoryError, OverflowError, RecursionError) as error:
        raise UserError(f"cameras={path}: is neither an .npy file nor a JSON list of 3×4 matrices") from error
    if reason := invalid_cameras(cameras):
        raise UserError(f"cameras={path}: {reason}; give world→camera matrices [N, 3, 4]")
    return cameras.astype(np.float64)


def pose_vectors(turns: Sequence[Turn], kind: PoseVector, elevation_degrees: float | None) -> Array:
    """Return the pose vectors `[N, 4]` of turns (radians; docs/conventions.md).

    Args:
        turns: Turns of the camera.
        kind: The pose vector of the checkpoint. Stable-Zero123's holds the elevation of the input camera.
        elevation_degrees: That elevation, above the horizon.

    Raises:
        UserError: The pose vector needs an elevation, and none is given.
    """
    polar, azimuth, radius = np.array(turns, dtype=np.float64).reshape(-1, 3).T
    vectors = np.stack(
        [pose_vector(*turn) for turn in zip(np.radians(polar), np.radians(azimuth), radius, strict=True)]
    )
    if kind is PoseVector.stable_zero123:
        if elevation_degrees is None:
            raise UserError(
                "elevation: this checkpoint has Stable-Zero123's pose vector, which holds the elevation of the input "
                "camera; give elevation=20, in degrees above the horizon"
            )
        vectors[:, 3] = math.radians(90 - elevation_degrees)
    return vectors


def cameras_after(
    turns: Sequence[Turn], elevation_degrees: float, radius: float = DEFAULT_RADIUS, azimuth_degrees: float = 0.0
) -> Array:
    """Return the extrinsics `[N, 3, 4]`, world→camera, after each turn of the input camera.

    A camera that passes a pole comes down on the other side.

    Args:
        turns: Turns of the camera.
        elevation_degrees: Elevation of the input camera.
        radius: Distance of the input camera, object sizes.
        azimuth_degrees: Azimuth of the input camera.
    """
    input_polar = 90 - elevation_degrees
    centres = [
        spherical_to_cartesian(
            math.radians(input_polar + polar), math.radians(azimuth_degrees + azimuth), radius + delta_radius
        )
        for polar, azimuth, delta_radius in turns
    ]
    return np.stack([look_at_origin(centre) for centre in centres])


def _check_number(views: int, name: str) -> None:
    if not 1 <= views <= MAX_POSES:
        raise UserError(f"{name}: give 1 to {MAX_POSES}, not {views}")
