"""Extract the surface of a density grid by marching cubes."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage.measure import marching_cubes

from conf.options import UserError
from rendering.cameras import Array

Faces = NDArray[np.int64]

MIN_COVERAGE = 0.05  # opacity of the densest ray along an axis, below which a field counts as empty
MIN_PART = 0.01  # volume of a part, relative to the largest part, below which it is a speck
CANDIDATES = 256  # levels that `surface_opacity` compares
TIE = 0.005  # levels whose silhouettes agree this little less than the best are as good


def extract_surface(density: NDArray[np.float32], half: float, level: float | None = None) -> tuple[Array, Faces]:
    """Return the surface of a density grid: vertices `[V, 3]` and faces `[F, 3]`, counter-clockwise from outside.

    Marching cubes runs on the opacity of a cell, 1 - exp(-σ · cell), rather than on the density: a fit leaves the
    density of opaque cells at arbitrary values, which would move the surface between two nodes arbitrarily. The grid is
    padded by empty cells, so that the surface is closed at its border. Specks and the inner walls of cavities, which no
    camera sees, are dropped.

    Args:
        density: Density σ per unit of length `[N, N, N]`, in the index order x, y, z.
        half: The nodes of the grid span [-half, half] on each axis.
        level: Density at the surface; None for the one whose silhouettes agree best (`surface_opacity`).

    Raises:
        UserError: The density is not finite, the field is empty, or nothing in it is denser than `level`.
    """
    if not np.isfinite(density).all():
        raise UserError("the density of the field is not finite: the fit diverged; lower its learning rate")
    cell = 2 * half / (density.shape[0] - 1)
    opacity = -np.expm1(-cell * np.maximum(density, 0)).astype(np.float32)
    threshold = surface_opacity(opacity) if level is None else -math.expm1(-level * cell)
    if not 0 < threshold < opacity.max():
        raise UserError(f"level={level:g}: no part of the field is as dense; choose a level below {density.max():g}")
    vertices, faces, _, _ = marching_cubes(np.pad(opacity, 1), threshold, allow_degenerate=False)
    vertices = (vertices.astype(np.float64) - 1) * cell - half
    return large_parts(vertices, faces[:, ::-1].astype(np.int64))


def surface_opacity(opacity: NDArray[np.float32]) -> float:
    """Return the opacity of a cell at the surface of a field `[N, N, N]`.

    A fit saturates at densities that differ by orders of magnitude between fits and inside one object, so that neither
    a fixed level nor one from the histogram (a multiple of the mean, Otsu) is right for all of them. The level is
    chosen by its result: seen along the three axes, the solid covers the pixels {max of the cells > level}, and the
    field those whose accumulated opacity exceeds one half. The intersection over union of the two is maximised. Of all
    levels that agree equally well the middle one is taken, half the opacity where the boundary of the object is sharp.

    Raises:
        UserError: The field is empty.
    """
    highest = np.stack([opacity.max(axis=axis) for axis in range(3)])
    with np.errstate(divide="ignore"):  # a cell of opacity 1
        accumulated = -np.expm1(np.stack([np.log1p(-opacity).sum(axis=axis) for axis in range(3)]))
    if accumulated.max() < MIN_COVERAGE:
        raise UserError("the field is empty: no view found an object in it; check the pictures and their masks")
    covered = accumulated > min(0.5, accumulated.max() / 2)
    levels = np.geomspace(1e-5, 1, CANDIDATES + 1)[:-1] * highest.max()
    # Both counts for all levels at once: the pixels above a level are the rest of the sorted ones.
    inside, all_pixels = np.sort(highest[covered]), np.sort(highest, axis=None)
    both = inside.size - np.searchsorted(inside, levels, side="right")
    solid = all_pixels.size - np.searchsorted(all_pixels, levels, side="right")
    agreement = both / (solid + inside.size - both)
    best = int(agreement.argmax())
    worse = np.flatnonzero(agreement < agreement[best] - TIE)
    first = worse[worse < best].max(initial=-1) + 1
    last = worse[worse > best].min(initial=CANDIDATES) - 1
    return float(levels[first] + levels[last]) / 2


def large_parts(vertices: Array, faces: Faces) -> tuple[Array, Faces]:
    """Return the connected parts of a closed mesh whose volume is at least 1 % of the largest one's.

    Inner walls of cavities wind the other way, so that their signed volume is negative and they are dropped too.
    """
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]]])
    graph = coo_array((np.ones(len(edges), dtype=bool), edges.T), shape=(len(vertices), len(vertices)))
    part = connected_components(graph, directed=False)[1][faces[:, 0]]
    a, b, c = (vertices[corner] for corner in faces.T)
    volumes = np.bincount(part, np.einsum("fi,fi->f", a, np.cross(b, c)) / 6)
    faces = faces[volumes[part] >= MIN_PART * volumes.max()]
    used, faces = np.unique(faces, return_inverse=True)
    return vertices[used], faces.reshape(-1, 3)
