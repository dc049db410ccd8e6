"""Map the texels of a texture to points of the surface, and fill the texels between."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from inference.reconstruction.surface.extraction import Faces
from rendering.cameras import Array

CANDIDATES_AT_ONCE = 1 << 21  # texels in the bounding boxes of triangles; bounds the memory
ON_EDGE = 1e-9  # barycentric weight below zero that still counts as inside


@dataclass(frozen=True)
class Texels:
    """The texels whose centre lies on a triangle.

    Attributes:
        index: Place in the texture, row · size + column from the top left, `[P]`, ascending.
        face: Index of the triangle `[P]`.
        barycentric: Weights of its corners `[P, 3]`.
    """

    index: NDArray[np.int64]
    face: NDArray[np.int64]
    barycentric: Array

    def interpolate(self, values: Array, faces: Faces) -> Array:
        """Return values of the vertices `[V, C]` interpolated at the texels `[P, C]`."""
        return np.einsum("pk,pkc->pc", self.barycentric, values[faces[self.face]])


def rasterise(uv: Array, size: int) -> Texels:
    """Return the texels of a square texture that triangles with corners `uv` `[F, 3, 2]` cover.

    Where triangles overlap, the last one is taken.
    """
    corners = np.stack([uv[..., 0] * size, (1 - uv[..., 1]) * size], axis=-1)  # pixels from the top left
    low = np.maximum(np.ceil(corners.min(axis=1) - 0.5), 0).astype(np.int64)
    high = np.minimum(np.floor(corners.max(axis=1) - 0.5), size - 1).astype(np.int64)
    extent = np.maximum(high - low + 1, 0)
    ends = np.cumsum(extent.prod(axis=1))
    chunks = np.searchsorted(ends, np.arange(CANDIDATES_AT_ONCE, ends[-1] + CANDIDATES_AT_ONCE, CANDIDATES_AT_ONCE))
    face = np.full(size * size, -1, dtype=np.int64)
    barycentric = np.zeros((size * size, 3))
    start = 0
    for stop in np.unique(np.minimum(chunks + 1, len(uv))):
        index, inside, weights = _inside(corners, low, extent, np.arange(start, stop), size)
        face[index], barycentric[index] = inside, weights
        start = stop
    index = np.flatnonzero(face >= 0)
    return Texels(index, face[index], barycentric[index])


def _inside(corners: Array, low: NDArray, extent: NDArray, faces: Faces, size: int) -> tuple[NDArray, NDArray, Array]:
    """Return texel, face and barycentric weights of the texel centres in the given triangles."""
    count = extent[faces].prod(axis=1)
    face = np.repeat(faces, count)
    number = np.arange(len(face)) - np.repeat(np.cumsum(count) - count, count)  # within the bounding box
    row, column = np.divmod(number, extent[face, 0])
    row, column = row + low[face, 1], column + low[face, 0]
    a, b, c = (corners[face, corner] for corner in range(3))
    p = np.stack([column, row], axis=1) + 0.5
    area = _cross(b - a, c - a)
    with np.errstate(divide="ignore", invalid="ignore"):  # triangles without area
        v, w = _cross(p - a, c - a) / area, _cross(b - a, p - a) / area
        weights = np.stack([1 - v - w, v, w], axis=1)
    inside = (weights >= -ON_EDGE).all(axis=1)
    return (row * size + column)[inside], face[inside], weights[inside]


def _cross(a: Array, b: Array) -> Array:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def pad(texture: NDArray, index: NDArray[np.int64]) -> NDArray:
    """Return a texture `[S, S, …]` whose texels other than `index` have the value of the nearest of those."""
    empty = np.ones(texture.shape[:2], dtype=bool)
    empty.ravel()[index] = False
    row, column = distance_transform_edt(empty, return_distances=False, return_indices=True)
    return texture[row, column]
