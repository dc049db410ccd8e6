"""Divide polygons into triangles, concave ones too."""

from collections.abc import Sequence
from itertools import chain

import manifold3d
import numpy as np
from numpy.typing import NDArray

from rendering.cameras import Array

FLATNESS = 1e-9  # of a corner's turn, relative to the polygon's squared area, from which on the corner is concave


def triangulate(
    polygons: Sequence[Sequence[int]] | NDArray[np.int64], vertices: Array
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the triangles that fill polygons, in the order of the polygons.

    A convex polygon is divided into a fan from its first corner, any other one by ear clipping in its mean plane.

    Args:
        polygons: Indices of the vertices around each polygon, `[K, N]` if all have N corners. Polygons of fewer than
            three corners are left out.
        vertices: Positions `[V, 3]`.

    Returns:
        The triangles as indices of vertices `[T, 3]`, the number of the polygon of each `[T]`, and its corners as
        positions in that polygon `[T, 3]`.

    Raises:
        ValueError: A polygon names a vertex that does not exist.
    """
    if isinstance(polygons, np.ndarray):
        sizes, flat = np.full(len(polygons), polygons.shape[1]), polygons.astype(np.int64).ravel()
    else:
        sizes = np.array([len(polygon) for polygon in polygons], dtype=np.int64)
        flat = np.array([*chain.from_iterable(polygons)], dtype=np.int64)
    if outside := flat[(flat < 0) | (flat >= len(vertices))].tolist():
        raise ValueError(f"a face names vertex {outside[0]}, counted from 0, of {len(vertices)}")
    starts = np.cumsum(sizes) - sizes
    numbers, corners = [np.empty(0, np.int64)], [np.empty((0, 3), np.int64)]
    for size in np.unique(sizes[sizes >= 3]).tolist():
        rows = np.flatnonzero(sizes == size)
        fan = np.stack([np.zeros(size - 2, np.int64), np.arange(1, size - 1), np.arange(2, size)], axis=1)
        triangles = np.tile(fan, (len(rows), 1, 1))
        if size > 3:
            points = vertices[flat[starts[rows][:, None] + np.arange(size)]]
            normals, concave = _plane(points)
            for row in np.flatnonzero(concave):
                clipped = _clip_ears(points[row], normals[row])
                if len(clipped) == size - 2:
                    triangles[row] = clipped
        numbers.append(np.repeat(rows, size - 2))
        corners.append(triangles.reshape(-1, 3))
    number = np.concatenate(numbers)
    order = np.argsort(number, kind="stable")
    number, corner = number[order], np.concatenate(corners)[order]
    return flat[starts[number][:, None] + corner], number, corner


def _plane(points_KN3: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Return the normals `[K, 3]` of polygons, as long as twice their area, and which have a concave corner `[K]`."""
    spokes = points_KN3 - points_KN3[:, :1]
    normals = np.cross(spokes, np.roll(spokes, -1, axis=1)).sum(axis=1)
    edges = np.roll(points_KN3, -1, axis=1) - points_KN3
    turns = np.einsum("kni,ki->kn", np.cross(np.roll(edges, 1, axis=1), edges), normals)
    return normals, (turns < -FLATNESS * (normals**2).sum(axis=1, keepdims=True)).any(axis=1)


def _clip_ears(points_N3: Array, normal: Array) -> NDArray[np.int64]:
    """Return the triangles `[T, 3]` of one polygon, projected along its normal."""
    across = np.eye(3)[np.abs(normal).argmin()]
    u = np.cross(across, normal)
    u /= np.linalg.norm(u)
    v = np.cross(normal / np.linalg.norm(normal), u)
    flat = (points_N3 - points_N3.mean(axis=0)) @ np.stack([u, v], axis=1)
    return np.asarray(manifold3d.triangulate([flat]), dtype=np.int64).reshape(-1, 3)
