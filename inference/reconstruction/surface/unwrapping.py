"""Assign texture coordinates to the faces of a mesh."""

import math
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from inference.reconstruction.surface.extraction import Faces
from rendering.cameras import Array

SCRIPT = Path(__file__).with_name("xatlas_process.py")
GUTTER = 1.5  # pixels around each triangle of the atlas by triangles, so that bilinear sampling stays inside
SMALLEST_CELL = 8  # pixels of a pair of triangles
LARGEST_TEXTURE = 8192  # pixels; beyond it, GPUs refuse textures


def unwrap(vertices: Array, faces: Faces, size: int = 1024, deadline_s: float = 120.0) -> tuple[Array, int]:
    """Return texture coordinates `[F, 3, 2]` without overlaps, and the side of the square texture in pixels.

    xatlas cuts the surface into charts. It can run for hours, or crash, on some meshes, so that it runs in a process of
    its own; where that fails, every triangle gets its own place (`triangle_atlas`).

    Args:
        vertices: Positions `[V, 3]`.
        faces: Triangles `[F, 3]`.
        size: Side of the texture in pixels.
        deadline_s: Seconds, after which the process is ended.
    """
    uv = _xatlas(vertices, faces, size, deadline_s)
    return triangle_atlas(vertices, faces, size) if uv is None else (uv, size)


def triangle_atlas(vertices: Array, faces: Faces, size: int) -> tuple[Array, int]:
    """Return an atlas of separate triangles: two right triangles in each of equal square cells.

    The longest side of a triangle becomes the hypotenuse. The texture is enlarged where its cells would be too small.

    Returns:
        Texture coordinates `[F, 3, 2]`, and the side of the texture in pixels.
    """
    columns = max(math.ceil(math.sqrt((len(faces) + 1) // 2)), 1)
    while size // columns < SMALLEST_CELL and size < LARGEST_TEXTURE:
        size *= 2
    cell = size / columns
    # Gutters: two around the cell, two along the diagonal, which is √2 wider along the axes.
    leg = cell - (2 + math.sqrt(2)) * GUTTER if cell >= SMALLEST_CELL else cell / 2
    first = np.array([[0, 0], [leg, 0], [0, leg]]) + (cell - leg) / (2 + math.sqrt(2))
    template = np.stack([first, cell - first])  # the second triangle is the first one turned by 180 degrees

    number = np.arange(len(faces))
    row, column = np.divmod(number // 2, columns)
    places = template[number % 2] + cell * np.stack([column, row], axis=1)[:, None]
    corners = vertices[faces]
    opposite = np.linalg.norm(np.roll(corners, -1, axis=1) - np.roll(corners, 1, axis=1), axis=2)  # side lengths
    order = (np.arange(3) - opposite.argmax(axis=1)[:, None]) % 3
    return np.take_along_axis(places, order[:, :, None], axis=1) / size, size


def _xatlas(vertices: Array, faces: Faces, size: int, deadline_s: float) -> Array | None:
    """Return the coordinates that xatlas finds within `deadline_s`, or None."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "mesh.npz"), Path(folder, "atlas.npz")
        np.savez(source, vertices=vertices, faces=faces, size=size)
        command = [sys.executable, "-P", str(SCRIPT), str(source), str(target)]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=deadline_s)
        except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
            return None
        with np.load(target) as atlas:
            uv, shape = atlas["uv"], atlas["shape"]
    if uv.shape != (len(faces), 3, 2) or not np.isfinite(uv).all():
        return None
    return uv / shape.max()
