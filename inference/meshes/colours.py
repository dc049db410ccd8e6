"""Reduce the textures of a mesh to colours of its vertices."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from inference.meshes.ray_casting import Hits, RayCaster
from inference.meshes.srgb import from_linear, to_bytes, to_linear
from inference.meshes.textured_mesh import TexturedMesh

CORNER = 0.99  # weight of the corner at the points where a texture is sampled, so that they lie inside of the face


def colours_of_vertices(mesh: TexturedMesh) -> NDArray[np.uint8]:
    """Return the sRGB colours `[V, 3]` of the vertices: texture × colours, the mean over the corners of the faces."""
    number = len(mesh.faces)
    weights = np.full((3, 3), (1 - CORNER) / 2)
    np.fill_diagonal(weights, CORNER)
    hits = Hits(np.zeros(3 * number), np.repeat(np.arange(number), 3), np.tile(weights, (number, 1)))
    plain = replace(mesh, vertex_colours=None)
    light = to_linear(RayCaster(plain).colours(hits)[:, :3])
    sums = [np.bincount(mesh.faces.ravel(), light[:, channel], len(mesh.vertices)) for channel in range(3)]
    count = np.bincount(mesh.faces.ravel(), minlength=len(mesh.vertices))
    mean = np.stack(sums, axis=1) / np.maximum(count, 1)[:, None]
    if mesh.vertex_colours is not None:
        mean *= to_linear(mesh.vertex_colours / 255)
    return to_bytes(from_linear(mean))
