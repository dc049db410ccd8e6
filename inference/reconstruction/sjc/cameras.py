"""Sample the cameras of score Jacobian chaining."""

import numpy as np

from inference.reconstruction.sjc.settings import SjcSettings
from rendering.cameras import Array, camera_centre, look_at_origin


def sample_camera(rng: np.random.Generator, settings: SjcSettings) -> Array:
    """Return the extrinsics `[3, 4]` of a random camera that looks at the origin.

    The direction is a normalised sample of the cube [-1, 1]³, the radius uniform; samples outside of the range of
    heights are rejected (`sample_spherical` of the original's pose.py).
    """
    while True:
        direction = rng.uniform(-1, 1, 3)
        centre = direction / np.linalg.norm(direction) * rng.uniform(settings.min_radius, settings.max_radius)
        if settings.min_height < centre[2] < settings.max_height:
            return look_at_origin(centre)


def nearby_camera(rng: np.random.Generator, camera: Array, distance: float) -> Array:
    """Return a camera at `distance` from another in a random direction, which looks at the origin too."""
    direction = rng.normal(size=3)
    return look_at_origin(camera_centre(camera) + direction / np.linalg.norm(direction) * distance)
