"""Topology of polygon meshes in numpy: coincident faces, and parts that are turned inside out.

A mesh is given by its corners: `corners` `[C]` holds the vertex of each, face by face, and `starts` `[F]` the first
corner of each face. No face is empty.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

GRID = 1e-6  # of the longest side: vertices this close count as one
TANGENT_STEPS = 100  # of a tangent's coordinates, which agree where two faces are less than about 0.5° apart
MIN_INWARD = -0.005  # volume by area^1.5 (a sphere has 0.094), below which a part counts as turned inside out


@dataclass(frozen=True)
class Overlaps:
    """Which faces `[F]` lie on others: in one plane, on the same side of a common edge."""

    any: NDArray[np.bool_]  # on another
    later: NDArray[np.bool_]  # on an earlier one
    reversed: NDArray[np.bool_]  # on one that faces the other way
    repeated: NDArray[np.bool_]  # on an earlier one that faces the same way
    layer: Integers  # of the faces that lie on others: equal where they continue each other


def weld(points: Floats) -> Integers:
    """Return a number for each of `points` `[N, 3]`, equal where they lie in one place."""
    extent = np.ptp(points, axis=0).max() or 1.0
    # The shift keeps round coordinates, as those of a modelling grid, away from the borders of the cells.
    x, y, z = np.floor((points - points.min(axis=0)) / (GRID * extent) + 1 / np.pi).astype(np.int64).T
    return np.unique((x << 42) + (y << 21) + z, return_inverse=True)[1]


def overlaps(points: Floats, corners: Integers, starts: Integers) -> Overlaps:
    """Find the faces that lie on others, `points` `[V, 3]` being the vertices.

    Two faces lie on each other if they have an edge in common and the same tangent, which is perpendicular to the edge
    and leads into the face. So the copy of a polygon is found even if it is divided into other triangles.
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
    """Return each corner's edge to the next: a number for its ends, its direction, and a number for the tangent.

    The edge is 0 if it has no length, the tangent if its face has no area.
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
    """Return a label for each of `count` faces, equal where edges connect them that they pass in opposite directions.

    Only edges of four faces count, two in each direction: there each continues in the one that does not lie on it.
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
    """Return where in sorted `keys` another one begins."""
    return np.r_[True, keys[1:] != keys[:-1]][: len(keys)]


def _repeated(keys: NDArray[np.uint64]) -> Integers:
    """Return the places of `keys` that are not unique, sorted by key and then by place."""
    order = np.argsort(keys)
    begins = _begins(keys[order])
    order = np.sort(order[~(begins & np.r_[begins[1:], True][: len(begins)])])
    return order[np.argsort(keys[order], kind="stable")]


def _running(flags: NDArray[np.bool_], begins: NDArray[np.bool_]) -> Integers:
    """Return how many of `flags` `[N]` are set up to each place, counted anew where a group begins."""
    total = np.cumsum(flags)
    return total - (total - flags)[begins][np.cumsum(begins) - 1]


def area_vectors(points: Floats, corners: Integers, starts: Integers) -> Floats:
    """Return the normal of each face times its area, `[F, 3]` (Newell's method)."""
    places = points[corners] - points.mean(axis=0)
    return np.add.reduceat(np.cross(places, places[_following(len(corners), starts)]), starts) / 2


def vertex_normals(points: Floats, triangles: Integers) -> Floats:
    """Return the unit mean normal `[V, 3]` of the triangles `[T, 3]` around each vertex, zero where there are none."""
    areas = area_vectors(points, triangles.ravel(), np.arange(0, triangles.size, 3)).repeat(3, axis=0)
    return _unit(_sums(triangles.ravel(), areas, len(points)))


def vertex_shifts(points: Floats, corners: Integers, starts: Integers, distance: Floats, layer: Integers) -> Floats:
    """Return the shift `[V, 3]` of each vertex that moves each face along its normal by `distance` `[F]`.

    Vertices in one place move together if their faces are of one `layer` `[F]`, so that no gap opens between them.
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
    """Give triangles `[T, 3]` that are an earlier one wound the other way round vertices of their own.

    Triangles that are an earlier one wound the same way round lose their area, as a mark for those to be removed.

    Returns:
        The triangles, and the vertices `[N]` that the new ones, numbered from `count` on, are copies of. Reversed
        triangles that share a vertex still do.
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
    """Return for each face whether its part of the mesh is turned inside out, as the hull of a toon outline is.

    Parts are connected faces, vertices in one place being one. The sign of a part's volume tells, taken about its own
    centre, so that it is near zero for flat open parts.
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
    return (volume < MIN_INWARD * total**1.5)[part]


def components(count: int, first: Integers, second: Integers) -> Integers:
    """Return a label for each of `count` nodes, equal where edges `first[i]`-`second[i]` connect them."""
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
    """Return the corner that comes after each of `count` corners on the same face."""
    following = np.arange(1, count + 1)
    following[np.r_[starts[1:], count] - 1] = starts
    return following


def _sums(places: Integers, vectors: Floats, count: int) -> Floats:
    """Return the sum `[count, 3]` of the `vectors` `[N, 3]` that belong to each of `places` `[N]`."""
    return np.stack([np.bincount(places, axis, count) for axis in vectors.T], axis=1)


def _unit(vectors: Floats) -> Floats:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-300)


def scramble(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return a hash of each number (splitmix64's finaliser)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
