"""Compute vertex normals for shading."""

import math

import numpy as np
from numpy.typing import NDArray

from rendering.cameras import Array
from rendering.faces import area_vectors, vertex_normals

CREASE_DEGREES = 45.0  # between a face and the mean of its neighbours; sharper corners keep the normal of the face


def corner_normals(vertices: Array, faces: NDArray[np.int64]) -> Array:
    """Return the unit normals of the corners of each face `[F, 3, 3]`: smooth, except at creases."""
    flat = area_vectors(vertices, faces.ravel(), np.arange(0, faces.size, 3))
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    flat = np.where(length > 0, flat / np.where(length > 0, length, 1), [0.0, 0.0, 1.0])[:, None]
    smooth = vertex_normals(vertices, faces)[faces]
    crease = (flat * smooth).sum(axis=2, keepdims=True) < math.cos(math.radians(CREASE_DEGREES))
    return np.where(crease, flat, smooth)
