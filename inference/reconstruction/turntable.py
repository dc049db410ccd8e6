"""Render pictures of a mesh from all sides."""

import numpy as np
from PIL import Image

from inference.meshes.ray_casting import RayCaster, on_white
from inference.meshes.textured_mesh import TexturedMesh
from rendering.cameras import FOV_DEGREES, Array, orbit

SIZE_PX, ELEVATION_DEGREES = 384, 20.0
COVERED = 0.8  # largest share of a picture's width or height that the mesh covers


def turntable(mesh: TexturedMesh, views: int, size_px: int = SIZE_PX) -> list[Image.Image]:
    """Return pictures of a mesh from cameras on a circle around it, on white; the first from the front."""
    cameras = surrounding_cameras(mesh, views)
    return [Image.fromarray(pixels) for pixels in on_white(RayCaster(mesh).render(cameras, size_px))]


def surrounding_cameras(mesh: TexturedMesh, views: int) -> Array:
    """Return cameras `[N, 3, 4]` on a circle around a mesh, as near as `COVERED` allows.

    A vertex v is drawn at (right · v, up · v) / (r − back · v) by a camera at the distance r along its axis "back", so
    that the largest of |right · v| / k + back · v and |up · v| / k + back · v over all vertices and cameras is the
    distance at which the mesh covers the share k / tan(FOV / 2) of the picture.
    """
    polar = np.radians(90 - ELEVATION_DEGREES)
    axes = orbit(views, polar, 1.0)[:, :, :3]  # right, up and back
    right, up, back = np.moveaxis(np.einsum("nij,vj->niv", axes, mesh.vertices), 1, 0)
    half = COVERED * np.tan(np.radians(FOV_DEGREES / 2))
    radius = (np.maximum(np.abs(right), np.abs(up)) / half + back).max()
    return orbit(views, polar, float(radius))
