"""Cameras, view sampling and relative poses: the geometric conventions of the project, in numpy.

World: z up, the object centred at the origin, the longest side of its bounding box 1.
Camera: Blender axes (x right, y up, looks along -z). Extrinsics are `[R|t]`, world→camera, float64 `[3, 4]`;
the centre of the camera is -Rᵀt. Angles are radians unless a name says degrees.
Polar angle θ is measured from +z down (0 above, π below), azimuth φ from +x towards +y.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

LENS_MM = 35.0
SENSOR_MM = 32.0
FOV_DEGREES = math.degrees(2 * math.atan(SENSOR_MM / (2 * LENS_MM)))  # 49.13
GRID_AZIMUTHS = 24  # cameras on each row of a grid, 15 degrees apart
RADIUS_RANGE = (1.5, 2.2)  # of the released renders, in object sizes
ROTATION_TOLERANCE = 1e-3  # of RRᵀ - 1, in cameras of others

Array = NDArray[np.float64]


def spherical_to_cartesian(polar: float, azimuth: float, radius: float) -> Array:
    """Return the Cartesian coordinates `[3]` of spherical ones."""
    return radius * np.array(
        [math.sin(polar) * math.cos(azimuth), math.sin(polar) * math.sin(azimuth), math.cos(polar)]
    )


def cartesian_to_spherical(centre: ArrayLike) -> tuple[float, float, float]:
    """Return (polar, azimuth, radius) of Cartesian coordinates `[3]`, as the original's `cartesian_to_spherical`."""
    x, y, z = np.asarray(centre, dtype=np.float64)
    return math.atan2(math.hypot(x, y), z), math.atan2(y, x), math.sqrt(x * x + y * y + z * z)


def look_at_origin(centre: ArrayLike) -> Array:
    """Return the extrinsics `[3, 4]` of a camera at `centre` `[3]` that looks at the origin, +z up in the image.

    The right axis follows from the azimuth, so that it is also defined for cameras on the z axis.

    Raises:
        ValueError: `centre` is the origin or not finite.
    """
    centre = np.asarray(centre, dtype=np.float64)
    polar, azimuth, radius = cartesian_to_spherical(centre)
    if not (math.isfinite(radius) and radius > 0):
        raise ValueError(f"centre={centre.tolist()}: a camera must be at a finite position other than the origin")
    backward = spherical_to_cartesian(polar, azimuth, 1.0)
    right = np.array([-math.sin(azimuth), math.cos(azimuth), 0.0])
    rotation = np.stack([right, np.cross(backward, right), backward])
    return np.concatenate([rotation, -(rotation @ centre)[:, None]], axis=1)


def camera_centre(extrinsics: ArrayLike) -> Array:
    """Return the world positions `[..., 3]` of cameras `[..., 3, 4]`: -Rᵀt."""
    extrinsics = np.asarray(extrinsics, dtype=np.float64)
    return -np.einsum("...ji,...j->...i", extrinsics[..., :3], extrinsics[..., 3])


def invalid_cameras(cameras: ArrayLike) -> str:
    """Return why cameras are not extrinsics `[N, 3, 4]` of views of an object, or an empty string if they are."""
    cameras = np.asarray(cameras)
    if cameras.ndim != 3 or cameras.shape[1:] != (3, 4) or cameras.dtype.kind not in "fiu":
        return f"the cameras are {cameras.dtype} {list(cameras.shape)}, not numbers of the shape [N, 3, 4]"
    if not np.isfinite(cameras).all():
        return "a camera is not of finite numbers"
    rotations = cameras[:, :, :3].astype(np.float64)
    errors = np.abs(rotations @ rotations.transpose(0, 2, 1) - np.eye(3))
    if errors.max(initial=0) > ROTATION_TOLERANCE or (np.linalg.det(rotations) < 0).any():
        return "a matrix is not a rotation and a translation"
    if not cameras[:, :, 3].any(axis=1).all():
        return "a camera lies in the object's centre"
    return ""


def relative_pose(target: ArrayLike, condition: ArrayLike) -> Array:
    """Return the pose vector `[4]` of camera `target` relative to camera `condition`, extrinsics `[3, 4]`.

    T = [θ_target - θ_cond, sin Δφ, cos Δφ, r_target - r_cond], as the released checkpoints expect
    (Zero-1-to-3, section 3.2; `get_T` of the original's `simple.py`).
    """
    return pose_between(camera_centre(target), camera_centre(condition))


def pose_between(target: ArrayLike, condition: ArrayLike) -> Array:
    """Return the pose vector `[4]` of a camera at `target` `[3]` relative to one at `condition` `[3]`."""
    polar_t, azimuth_t, radius_t = cartesian_to_spherical(target)
    polar_c, azimuth_c, radius_c = cartesian_to_spherical(condition)
    return pose_vector(polar_t - polar_c, azimuth_t - azimuth_c, radius_t - radius_c)


def pose_vector(polar: float, azimuth: float, radius: float) -> Array:
    """Return the pose vector `[4]` of a rotation by `polar` and `azimuth` (radians) and a change of the radius."""
    return np.array([polar, math.sin(azimuth), math.cos(azimuth), radius])


def sample_zero123(rng: np.random.Generator, views: int, radius: tuple[float, float] = RADIUS_RANGE) -> Array:
    """Return cameras `[views, 3, 4]` distributed as in the released renders.

    The direction is a normalised sample of the cube [-1, 1]³, hence denser towards its corners than a uniform
    one; the radius is uniform in the range `radius` (`sample_spherical` of the original's `blender_script.py`).
    """
    directions = rng.uniform(-1, 1, (views, 3))
    radii = rng.uniform(*radius, (views, 1))
    return np.stack([look_at_origin(c) for c in directions / np.linalg.norm(directions, axis=1, keepdims=True) * radii])


def sample_sphere(rng: np.random.Generator, views: int, radius: tuple[float, float] = RADIUS_RANGE) -> Array:
    """Return cameras `[views, 3, 4]` uniform on the sphere, with a radius uniform in the range `radius`."""
    return _sample_zone(rng, views, radius, lowest=-1.0)


def sample_hemisphere(rng: np.random.Generator, views: int, radius: tuple[float, float] = RADIUS_RANGE) -> Array:
    """Return cameras `[views, 3, 4]` uniform on the upper half of the sphere, radius uniform in the range `radius`."""
    return _sample_zone(rng, views, radius, lowest=0.0)


def _sample_zone(rng: np.random.Generator, views: int, radius: tuple[float, float], lowest: float) -> Array:
    # The height of a uniform sample of a sphere is uniform (Archimedes).
    polars = np.arccos(rng.uniform(lowest, 1, views))
    azimuths = rng.uniform(-math.pi, math.pi, views)
    centres = map(spherical_to_cartesian, polars, azimuths, rng.uniform(*radius, views))
    return np.stack([look_at_origin(centre) for centre in centres])


def orbit(views: int, polar: float, radius: float) -> Array:
    """Return cameras `[views, 3, 4]` on a circle at one polar angle, counter-clockwise from azimuth 0."""
    azimuths = 2 * math.pi * np.arange(views) / views
    return np.stack([look_at_origin(spherical_to_cartesian(polar, azimuth, radius)) for azimuth in azimuths])


def grid(rows: int, radius: float) -> Array:
    """Return cameras `[24·rows, 3, 4]` at `rows` polar angles in the middle of equal parts of 0 to 180 degrees."""
    polars = math.pi * (np.arange(rows) + 0.5) / rows
    return np.concatenate([orbit(GRID_AZIMUTHS, float(polar), radius) for polar in polars])


def project(points: ArrayLike, extrinsics: ArrayLike, resolution: int, fov_degrees: float = FOV_DEGREES) -> Array:
    """Return the pixel coordinates `[N, 2]` (column, row) of world points `[N, 3]` in a square image.

    The top left corner of the image is (0, 0), pixel centres lie at halves. Points behind the camera give NaN.
    """
    points, extrinsics = np.asarray(points, dtype=np.float64), np.asarray(extrinsics, dtype=np.float64)
    x, y, z = (points @ extrinsics[:, :3].T + extrinsics[:, 3]).T
    depth = np.where(z < 0, -z, np.nan)
    focal = resolution / (2 * math.tan(math.radians(fov_degrees) / 2))
    return np.stack([resolution / 2 + focal * x / depth, resolution / 2 - focal * y / depth], axis=1)
