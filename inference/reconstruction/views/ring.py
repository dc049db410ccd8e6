"""Place the cameras of the views that are sampled around an object."""

import math
from collections.abc import Sequence

import numpy as np

from rendering.cameras import Array, camera_centre, cartesian_to_spherical, look_at_origin, spherical_to_cartesian


def ring_cameras(input_camera: Array, elevations: Sequence[float], count: int) -> Array:
    """Return cameras `[len(elevations) · count, 3, 4]` in rings around the object, at the distance of the input camera.

    Neighbouring rings are shifted by half a step, so that their views see different sides. The views of a ring start
    behind the input camera's azimuth by that shift.

    Args:
        input_camera: Extrinsics `[3, 4]`.
        elevations: Degrees above the horizon of each ring.
        count: Cameras of a ring.
    """
    _, azimuth, radius = cartesian_to_spherical(camera_centre(input_camera))
    cameras = []
    for ring, elevation in enumerate(elevations):
        for i in range(count):
            turn = 2 * math.pi * (i + 0.5 * (ring % 2)) / count
            cameras.append(look_at_origin(spherical_to_cartesian(math.radians(90 - elevation), azimuth + turn, radius)))
    return np.stack(cameras)
