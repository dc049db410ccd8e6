"""A triangle mesh with colours."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rendering.cameras import Array


@dataclass(frozen=True)
class TexturedMesh:
    """A triangle mesh with colours.

    The colour of a point is that of its face's texture at the interpolated texture coordinates, times the interpolated
    colours of the vertices. Colours are sRGB; those of vertices are interpolated, and multiplied, in linear light.

    Attributes:
        vertices: Positions, float64 `[V, 3]`, z up.
        faces: Indices of the vertices, int64 `[F, 3]`, counter-clockwise as seen from outside.
        uv: Texture coordinates of the corners of each face, float64 `[F, 3, 2]`; (0, 0) is the bottom left corner of
            the texture, (1, 1) its top right corner.
        material: Index into `textures` of each face, int64 `[F]`.
        textures: Images uint8 `[H, W, 4]`, RGBA with straight alpha; 1 × 1 for a plain colour.
        vertex_colours: Colours uint8 `[V, 3]`; None for white.
    """

    vertices: Array
    faces: NDArray[np.int64]
    uv: Array
    material: NDArray[np.int64]
    textures: tuple[NDArray[np.uint8], ...]
    vertex_colours: NDArray[np.uint8] | None = None


def plain_mesh(vertices: Array, faces: NDArray[np.int64]) -> TexturedMesh:
    """Return a white mesh of vertices `[V, 3]` and faces `[F, 3]`."""
    white = np.full((1, 1, 4), 255, dtype=np.uint8)
    return TexturedMesh(vertices, faces, np.zeros((len(faces), 3, 2)), np.zeros(len(faces), np.int64), (white,))
