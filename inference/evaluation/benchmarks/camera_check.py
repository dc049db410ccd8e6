"""Compare the cameras of an object's views with those that a benchmark prescribes."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from conf.options import UserError
from inference.evaluation.benchmarks.benchmark import Benchmark, CameraKind
from rendering.cameras import Array, camera_centre, cartesian_to_spherical, invalid_cameras, orbit

RADIUS_TOLERANCE = 0.005  # object sizes
ANGLE_TOLERANCE_DEGREES = 0.5


def require_cameras(benchmark: Benchmark, cameras: ArrayLike, uid: str) -> None:
    """Raise `UserError` if the cameras `[V, 3, 4]` of object `uid` are not those of the benchmark."""
    if reason := cameras_match(benchmark, cameras):
        render = (
            f"; render them with +experiment={benchmark.cameras.experiment}" if benchmark.cameras.experiment else ""
        )
        raise UserError(f"benchmark={benchmark.name}: the cameras of {uid} do not match: {reason}{render}")


def cameras_match(benchmark: Benchmark, cameras: ArrayLike) -> str:
    """Return why cameras are not those of a benchmark, or an empty string if they are.

    Args:
        benchmark: The benchmark.
        cameras: Extrinsics of the views of an object, world→camera `[V, 3, 4]`.
    """
    return invalid_cameras(cameras) or next(_differences(benchmark, np.asarray(cameras, dtype=np.float64)), "")


def known_cameras(benchmark: Benchmark) -> Array | None:
    """Return the cameras `[V, 3, 4]` of a benchmark whose objects all have the same; None for other benchmarks."""
    cameras = benchmark.cameras
    if cameras.kind is not CameraKind.orbit:
        return None
    assert cameras.radius is not None and cameras.elevation is not None
    return orbit(cameras.views, math.radians(90 - cameras.elevation), sum(cameras.radius) / 2)


def _differences(benchmark: Benchmark, array: Array) -> Iterator[str]:
    """Yield a sentence for each difference between valid cameras and the prescribed ones."""
    cameras, given = benchmark.cameras, len(array)
    needed = cameras.views or max([*benchmark.targets, benchmark.input or 0]) + 1
    is_orbit = cameras.kind is CameraKind.orbit
    if given < needed or (is_orbit and given > needed):
        yield f"{given} views, the benchmark has {'' if is_orbit else 'at least '}{needed}"
        return
    if cameras.kind in (CameraKind.any, CameraKind.given):
        return
    positions = np.array([cartesian_to_spherical(centre) for centre in camera_centre(array)])
    elevations, azimuths, radii = 90 - np.degrees(positions[:, 0]), np.degrees(positions[:, 1]), positions[:, 2]
    yield from _axis_differences(array)
    if cameras.radius:
        yield from _outside(radii, cameras.radius, "distance", "object sizes", RADIUS_TOLERANCE)
    if is_orbit:
        assert cameras.elevation is not None
        yield from _outside(elevations, (cameras.elevation,) * 2, "elevation", "degrees", ANGLE_TOLERANCE_DEGREES)
        yield from _step_differences(azimuths)
    if benchmark.input is not None and cameras.input_radius:
        radius = radii[[benchmark.input]]
        yield from _outside(radius, cameras.input_radius, "distance of the input", "object sizes", RADIUS_TOLERANCE)
    if benchmark.input is not None and cameras.input_elevation:
        elevation = elevations[[benchmark.input]]
        limits = cameras.input_elevation
        yield from _outside(elevation, limits, "elevation of the input", "degrees", ANGLE_TOLERANCE_DEGREES)


def _axis_differences(array: Array) -> Iterator[str]:
    """Yield a sentence if a camera does not look at the origin, or is not upright."""
    centres = camera_centre(array)
    cosines = np.einsum("vi,vi->v", array[:, 2, :3], centres) / np.maximum(np.linalg.norm(centres, axis=1), 1e-9)
    off = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    if off.max() > ANGLE_TOLERANCE_DEGREES:
        yield f"view {int(off.argmax())} looks {off.max():.1f} degrees past the object's centre"
    tilt = np.degrees(np.arcsin(np.clip(np.abs(array[:, 0, 2]), 0, 1)))
    if tilt.max() > ANGLE_TOLERANCE_DEGREES:
        yield f"view {int(tilt.argmax())} is tilted by {tilt.max():.1f} degrees"


def _step_differences(azimuths: Array) -> Iterator[str]:
    """Yield a sentence if the azimuths `[V]`, degrees, are not equal steps of a full turn counter-clockwise."""
    step = 360 / len(azimuths)
    errors = np.abs((azimuths - azimuths[0] - step * np.arange(len(azimuths)) + 180) % 360 - 180)
    if errors.max() > ANGLE_TOLERANCE_DEGREES:
        number = int(errors.argmax())
        turn = (azimuths[number] - azimuths[0]) % 360
        yield f"view {number} lies {turn:.1f} degrees counter-clockwise of view 0, the benchmark's {step * number:.1f}"


def _outside(values: Array, limits: tuple[float, float], name: str, unit: str, tolerance: float) -> Iterator[str]:
    least, greatest = limits
    excess = np.maximum(least - values, values - greatest)
    if excess.max() > tolerance:
        prescribed = f"{least:g}" if least == greatest else f"{least:g} to {greatest:g}"
        yield f"{name} {values[excess.argmax()]:.3f} {unit}, the benchmark's {prescribed}"
