"""Pictures of a cube with painted sides, by ray casting."""

import math

import numpy as np
from PIL import Image

from rendering.cameras import FOV_DEGREES, camera_centre

SIDE = 256  # pixels


def cube(camera, texture):
    """Return a ray-cast picture on white of a cube with `texture` `[6, n, n]` on its sides."""
    focal = SIDE / (2 * math.tan(math.radians(FOV_DEGREES) / 2))
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
    rays = np.stack([(columns - SIDE / 2) / focal, (SIDE / 2 - rows) / focal, np.full_like(rows, -1)], axis=-1)
    rays, centre = rays @ camera[:, :3], camera_centre(camera)
    enters = (-0.3 * np.sign(rays) - centre) / rays
    axis, depth = enters.argmax(axis=-1), enters.max(axis=-1)
    hit = centre + depth[..., None] * rays
    on_object = (np.abs(hit) <= 0.3 + 1e-9).all(axis=-1)
    other = np.stack([np.take_along_axis(hit, ((axis + i) % 3)[..., None], axis=-1)[..., 0] for i in (1, 2)])
    u, v = np.clip((other + 0.3) / 0.6 * texture.shape[1], 0, texture.shape[1] - 1).astype(int)
    face = axis + 3 * (np.take_along_axis(rays, axis[..., None], axis=-1)[..., 0] > 0)
    return Image.fromarray(np.where(on_object, texture[face, u, v], 255).astype(np.uint8)).convert("RGB")
