"""Topology of polygon meshes in numpy: coincident faces, and parts that are turned inside out.

A mesh is given as `corners` `[C]`, the vertex index of each corner, face by face, and `starts` `[F]`, the index of the
first corner of each face. No face is empty.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

WELD_DISTANCE = 1e-6  # of the longest side: closer vertices count as one
TANGENT_STEPS = 100  # per unit of a tangent's coordinates: tangents less than about 0.5° apart are equal
MAX_INWARD_VOLUME = -0.005  # volume / area^1.5 (0.094 for a sphere); a part below it is turned inside out


@dataclass(frozen=True)
class Overlaps:
    """Flags of the faces `[F]` that lie on other faces: in one plane, on one side of a common edge.

    Attributes:
        any: Lies on another face.
        later: Lies on an earlier face.
        reversed: Lies on a face of opposite orientation.
        repeated: Lies on an earlier face of equal orientation.
        layer: Label of the coincident faces, equal for those that continue each other.
    """

    any: NDArray[np.bool_]
    later: NDArray[np.bool_]
    reversed: NDArray[np.bool_]
    repeated: NDArray[np.bool_]
    layer: Integers


def weld(points: Floats) -> Integers:
    """Return a label for each of `points` `[N, 3]`, equal for points in one place."""
    extent = np.ptp(points, axis=0).max() or 1.0
    # The shift keeps round coordinates, which are frequent, away from the borders of the cells.
    x, y, z = np.floor((points - points.min(axis=0)) / (WELD_DISTANCE * extent) + 1 / np.pi).astype(np.int64).T
    return np.unique((x << 42) + (y << 21) + z, return_inverse=True)[1]


def overlaps(points: Floats, corners: Integers, starts: Integers) -> Overlaps:
    """Find coincident faces of the mesh with the vertices `points` `[V, 3]`.

    Two faces coincide if they have a common edge and equal tangents, perpendicular to the edge and directed into the
    face. So the copy of a polygon is also found if it is triangulated differently.
    """
    count = len(starts)
    face = np.repeat(np.arange(count), np.diff(np.r_[starts, len(corners)]))
    edge, forward, tangent = _edges(points, corners, starts, face)
    keys = scramble(scramble(edge) + tangent)
    alone = (edge == 0) | (tangent == 0)  # degenerate
    keys[alone] = np.flatnonzero(alone)
    order = _repeated(keys)
    begins = _begins(keys[order])
    group, faces, ahead = np.cumsum(begins) - 1, face[order], forward[order]
    same = ahead == ahead[begins][group]
    number = np.where(same, _running(same, begins), _running(~same, begins))  # 1 for the first of its direction
    on_another, later, reversed_, repeated = np.zeros((4, count), dtype=bool)
    on_another[faces] = True
    later[faces[~begins]] = True
    reversed_[faces[(np.bincount(group, ~same) > 0)[group]]] = True
    repeated[faces[number > 1]] = True
    chosen = on_another[face] & ~alone
    layer = _layers(count, face[chosen], edge[chosen], forward[chosen], tangent[chosen])
    return Overlaps(on_another, later, reversed_, repeated, layer)


def _edges(
    points: Floats, corners: Integers, starts: Integers, face: Integers
) -> tuple[NDArray[np.uint64], NDArray[np.bool_], NDArray[np.uint64]]:
    """Return for the edge of each corner to the next: a label of its ends, its direction, and a label of the tangent.

    The first is 0 for an edge without length, the last for a face without area.
    """
    following = _following(len(corners), starts)
    normals = _unit(area_vectors(points, corners, starts))[face]
    tangents = np.cross(normals, _unit(points[corners[following]] - points[corners]))
    x, y, z = (np.floor(tangents * TANGENT_STEPS + 1 / np.pi).astype(np.int64) + TANGENT_STEPS + 1).T
    one, other = (welded := weld(points)[corners] + 1), welded[following]
    edge = np.where(one == other, 0, (np.minimum(one, other) << 32) + np.maximum(one, other))
    tangent = np.where(normals.any(axis=1), (x << 40) + (y << 20) + z, 0)
    return edge.astype(np.uint64), one < other, tangent.astype(np.uint64)


def _layers(
    count: int, face: Integers, edge: NDArray[np.uint64], forward: NDArray[np.bool_], tangent: NDArray[np.uint64]
) -> Integers:
    """Return a label for each of `count` faces, equal for faces that continue each other across an edge.

    Only edges of four faces count, two in each direction: each face continues in the one that does not lie on it.
    """
    order = np.lexsort([~forward, edge])
    begins = _begins(edge[order])
    sizes = np.diff(np.r_[np.flatnonzero(begins), len(order)])
    fours = order[np.repeat(sizes == 4, sizes)].reshape(-1, 4)
    fours = fours[(forward[fours] == [True, True, False, False]).all(axis=1)]
    pairs = np.concatenate([fours[:, [a, b]] for a in (0, 1) for b in (2, 3)])
    first, second = pairs[tangent[pairs[:, 0]] != tangent[pairs[:, 1]]].T
    return components(count, face[first], face[second])


def _begins(keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return a mask of the first element of each run of equal `keys`, which are sorted."""
    return np.r_[True, keys[1:] != keys[:-1]][: len(keys)]


def _repeated(keys: NDArray[np.uint64]) -> Integers:
    """Return the indices of `keys` that are not unique, sorted by key and then by index."""
    order = np.argsort(keys)
    begins = _begins(keys[order])
    order = np.sort(order[~(begins & np.r_[begins[1:], True][: len(begins)])])
    return order[np.argsort(keys[order], kind="stable")]


def _running(flags: NDArray[np.bool_], begins: NDArray[np.bool_]) -> Integers:
    """Return the cumulative sum of `flags` `[N]` within each group; `begins` `[N]` marks the first of a group."""
    total = np.cumsum(flags)
    return total - (total - flags)[begins][np.cumsum(begins) - 1]


def area_vectors(points: Floats, corners: Integers, starts: Integers) -> Floats:
    """Return the normal of each face multiplied by its area, `[F, 3]` (Newell's method)."""
    places = points[corners] - points.mean(axis=0)
    return np.add.reduceat(np.cross(places, places[_following(len(corners), starts)]), starts) / 2


def vertex_normals(points: Floats, triangles: Integers) -> Floats:
    """Return the unit normal `[V, 3]` of each vertex, the mean of its triangles `[T, 3]`; zero without triangles."""
    areas = area_vectors(points, triangles.ravel(), np.arange(0, triangles.size, 3)).repeat(3, axis=0)
    return _unit(_sums(triangles.ravel(), areas, len(points)))


def vertex_shifts(points: Floats, corners: Integers, starts: Integers, distance: Floats, layer: Integers) -> Floats:
    """Return the shift `[V, 3]` of each vertex that moves each face along its normal by `distance` `[F]`.

    Vertices in one place move together if their faces have the same `layer` `[F]`, so that no gap opens between them.
    """
    normals = _unit(area_vectors(points, corners, starts))
    face = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(corners)]))
    moved = distance[face] != 0
    face, vertex = face[moved], corners[moved]
    layers, number = np.unique(layer[face], return_inverse=True)
    joint = np.unique(weld(points)[vertex] * len(layers) + number, return_inverse=True)[1]
    count = joint.max(initial=-1) + 1
    amount = np.zeros(count)
    np.maximum.at(amount, joint, np.abs(distance[face]))
    shifts = np.zeros_like(points)
    shifts[vertex] = (_unit(_sums(joint, normals[face] * distance[face, None], count)) * amount[:, None])[joint]
    return shifts


def split_reversed(triangles: Integers, count: int) -> tuple[Integers, Integers]:
    """Give separate vertices to triangles `[T, 3]` that have the vertices of an earlier one in opposite winding.

    Triangles that have the vertices and the winding of an earlier one become degenerate, which marks them for removal.

    Args:
        triangles: Vertex indices `[T, 3]`.
        count: Number of vertices.

    Returns:
        The new triangles, and the indices `[N]` of the vertices to copy as vertices `count`, `count` + 1, …. Reversed
        triangles that shared a vertex share its copy.
    """
    turned = np.take_along_axis(triangles, (triangles.argmin(axis=1)[:, None] + np.arange(3)) % 3, axis=1)
    wound = turned[:, 1] < turned[:, 2]
    keys = scramble(triangles.astype(np.uint64)).sum(axis=1, dtype=np.uint64)
    order = _repeated(keys)
    begins = _begins(keys[order])
    reversed_ = wound[order] != wound[order[begins]][np.cumsum(begins) - 1]
    number = np.where(reversed_, _running(reversed_, begins), _running(~reversed_, begins))
    triangles = triangles.copy()
    triangles[order[number > 1]] = triangles[order[number > 1], :1]
    chosen = order[reversed_ & (number == 1)]
    sources, place = np.unique(triangles[chosen], return_inverse=True)
    triangles[chosen] = place.reshape(-1, 3) + count
    return triangles, sources


def inward(points: Floats, corners: Integers, starts: Integers) -> NDArray[np.bool_]:
    """Return for each face whether its part of the mesh is turned inside out, like the hull of a toon outline.

    A part is a set of connected faces; vertices in one place count as one. It is turned inside out if its volume about
    its centre is negative; that of flat open parts is near zero.
    """
    sizes = np.diff(np.r_[starts, len(corners)])
    welded = weld(points)
    labels = components(len(points), np.repeat(welded[corners[starts]], sizes), welded[corners])
    part = np.unique(labels[welded[corners[starts]]], return_inverse=True)[1]
    normals = area_vectors(points, corners, starts)
    area = np.linalg.norm(normals, axis=1)
    centres = np.add.reduceat(points[corners], starts) / sizes[:, None]
    total = np.bincount(part, area)
    middle = _sums(part, centres * area[:, None], len(total)) / np.maximum(total, 1e-300)[:, None]
    volume = np.bincount(part, ((centres - middle[part]) * normals).sum(axis=1)) / 3
    return (volume < MAX_INWARD_VOLUME * total**1.5)[part]


def components(count: int, first: Integers, second: Integers) -> Integers:
    """Return a label for each of `count` nodes, equal for nodes that edges `first[i]`-`second[i]` connect."""
    labels = np.arange(count)
    while True:
        one, other = labels[first], labels[second]
        apart = one != other
        if not apart.any():
            return labels
        first, second = first[apart], second[apart]
        low = np.minimum(one[apart], other[apart])
        np.minimum.at(labels, one[apart], low)
        np.minimum.at(labels, other[apart], low)
        while (labels[labels] != labels).any():
            labels = labels[labels]


def _following(count: int, starts: Integers) -> Integers:
    """Return the index of the next corner of the same face for each of `count` corners."""
    following = np.arange(1, count + 1)
    following[np.r_[starts[1:], count] - 1] = starts
    return following


def _sums(indices: Integers, vectors: Floats, count: int) -> Floats:
    """Return the sums `[count, 3]` of `vectors` `[N, 3]` with equal `indices` `[N]`."""
    return np.stack([np.bincount(indices, axis, count) for axis in vectors.T], axis=1)


def _unit(vectors: Floats) -> Floats:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-300)


def scramble(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return a hash of each number (splitmix64's finaliser)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
