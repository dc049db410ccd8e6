"""Compute which grid nodes lie inside a mesh, from the crossings of the grid's lines with its faces."""

import numpy as np
from numpy.typing import NDArray

from inference.meshes.textured_mesh import TexturedMesh
from rendering.cameras import Array

MAX_CROSSINGS = 1 << 22  # at once


def grid_nodes(resolution: int, half_side: float) -> Array:
    """Return the coordinates `[R]` of the nodes along an axis: the centres of R equal parts of ±`half_side`."""
    return (np.arange(resolution) + 0.5) / resolution * 2 * half_side - half_side


def occupancy(mesh: TexturedMesh, resolution: int, half_side: float = 0.505) -> NDArray[np.bool_]:
    """Return which nodes of a grid lie inside of a mesh `[R, R, R]`, indexed by x, y, z.

    The lines of the grid along the three axes cross the faces; six rays from each node, along ±x, ±y and ±z, vote:

    - A line that enters as often as it leaves, by the orientation of the faces, is inside where it has entered more
      often or less often than left (nonzero winding). Closed parts may overlap; the inside is their union.
    - Any other line has met a hole or a face of the wrong orientation. Its two rays vote by the parity of their
      crossings. A hole misleads the rays that leave through it only.

    Crossings are exact: a line that meets an edge or a vertex of a closed surface crosses it once.

    Args:
        mesh: The mesh; nodes beyond its bounding box are outside.
        resolution: Nodes along each axis, R.
        half_side: The grid fills the cube ±`half_side`; its nodes are `grid_nodes`.
    """
    triangles = (mesh.vertices[mesh.faces] + half_side) * resolution / (2 * half_side) - 0.5  # nodes at 0, …, R - 1
    votes = np.zeros((resolution,) * 3, dtype=np.int8)
    for axis in range(3):
        line_votes = _votes(*_crossings(np.roll(triangles, -axis, axis=2), resolution), resolution)
        votes += np.moveaxis(line_votes, (0, 1, 2), ((axis + 1) % 3, (axis + 2) % 3, axis))
    return votes > 3


def inside_by_parity(mesh: TexturedMesh, resolution: int = 64, half_side: float = 1.0) -> NDArray[np.bool_]:
    """Return which nodes of a grid lie inside of a mesh `[R, R, R]` by one ray each, indexed by x, y, z.

    A node is inside if the line from x = -∞ to it crosses an odd number of faces. This is the sign of mesh2sdf (Batty's
    SDFGen), which the evaluations of SyncDreamer, Wonder3D and EscherNet use. A hole turns whole lines around, and a
    volume that two parts share is outside; `occupancy` is robust against both.

    Args:
        mesh: The mesh.
        resolution: Nodes along each axis, R.
        half_side: Node i lies at -`half_side` + 2 · `half_side` · i / R.
    """
    triangles = (mesh.vertices[mesh.faces] + half_side) * resolution / (2 * half_side)  # nodes at 0, …, R - 1
    lines, depths, _ = _crossings(triangles, resolution)
    crossings = _crossings_before(lines, depths, None, resolution)[..., :-1]
    return np.moveaxis(crossings % 2 == 1, 2, 0)


def _votes(lines: NDArray[np.int64], depths: Array, signs: Array, resolution: int) -> NDArray[np.int8]:
    """Return how many of the two rays of each node along its line say that it is inside `[R, R, R]`: line, depth."""
    crossings = _crossings_before(lines, depths, None, resolution)
    winding = _crossings_before(lines, depths, signs, resolution)
    parity = crossings[..., :-1] % 2 + (crossings[..., -1:] - crossings[..., :-1]) % 2
    return np.where(winding[..., -1:] == 0, 2 * (winding[..., :-1] != 0), parity).astype(np.int8)


def _crossings_before(
    lines: NDArray[np.int64], depths: Array, weights: Array | None, resolution: int
) -> NDArray[np.int64]:
    """Return the sums `[R, R, R + 1]` of the weights of the crossings before each node and of the whole line."""
    after = np.clip(np.ceil(depths), 0, resolution).astype(np.int64)  # the first node after the crossing
    cells = np.bincount(lines * (resolution + 1) + after, weights, resolution**2 * (resolution + 1))
    return np.cumsum(cells.reshape(resolution, resolution, resolution + 1).astype(np.int64), axis=2)


def _crossings(triangles: Array, resolution: int) -> tuple[NDArray[np.int64], Array, Array]:
    """Return where the lines of a grid along the first coordinate of `triangles` `[F, 3, 3]` cross them.

    Returns:
        For each crossing the line, row · R + column for the second coordinate `row` and the third one `column`; the
        first coordinate; and the orientation of the face, 1 or -1.
    """
    # Triangles are scanned in rows. Ranges are half open and each edge is evaluated from its lower end, so that two
    # triangles with a common edge share no node and leave none out.
    low, high = triangles[..., 1].min(axis=1), triangles[..., 1].max(axis=1)
    triangle, row = _integers_between(np.clip(low, 0, resolution), np.clip(high, 0, resolution))
    left, right = _row_ends(triangles[triangle], row)
    left, right = np.clip(left, 0, resolution), np.clip(right, 0, resolution)
    total = np.cumsum(np.ceil(right) - np.ceil(left))
    found = []
    for part in np.split(np.arange(len(row)), 1 + np.flatnonzero(np.diff(total // MAX_CROSSINGS))):
        scan, column = _integers_between(left[part], right[part])
        scan = part[scan]
        depths, signs = _depths(triangles[triangle[scan]], row[scan], column)
        found.append((row[scan] * resolution + column, depths, signs))
    lines, depths, signs = map(np.concatenate, zip(*found, strict=True))
    return lines, depths, signs


def _integers_between(low: Array, high: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return all integers in the half-open ranges [low, high), and the index of the range of each."""
    first, stop = np.ceil(low).astype(np.int64), np.ceil(high).astype(np.int64)
    counts = np.maximum(stop - first, 0)
    index = np.repeat(np.arange(len(low)), counts)
    return index, np.arange(len(index)) - np.repeat(np.cumsum(counts) - counts, counts) + first[index]


def _row_ends(triangles: Array, row: NDArray[np.int64]) -> tuple[Array, Array]:
    """Return the lowest and highest third coordinate of triangles `[N, 3, 3]` where the second one is `row` `[N]`."""
    left, right = np.full(len(row), np.inf), np.full(len(row), -np.inf)
    for start, end in ((0, 1), (1, 2), (2, 0)):
        p, q = triangles[:, start, 1:], triangles[:, end, 1:]
        swapped = (p[:, 0] > q[:, 0])[:, None]
        p, q = np.where(swapped, q, p), np.where(swapped, p, q)
        meets = (p[:, 0] <= row) & (row < q[:, 0])
        share = (row - p[:, 0]) / np.where(meets, q[:, 0] - p[:, 0], 1)
        at = p[:, 1] + share * (q[:, 1] - p[:, 1])
        left, right = np.where(meets, np.minimum(left, at), left), np.where(meets, np.maximum(right, at), right)
    return left, right


def _depths(triangles: Array, row: NDArray[np.int64], column: NDArray[np.int64]) -> tuple[Array, Array]:
    """Return the first coordinate of the planes of triangles `[N, 3, 3]` at (row, column), and their orientation."""
    origin = triangles[:, 0]
    normal = np.cross(triangles[:, 1] - origin, triangles[:, 2] - origin)
    rise = normal[:, 1] * (row - origin[:, 1]) + normal[:, 2] * (column - origin[:, 2])
    depth = origin[:, 0] - rise / np.where(normal[:, 0] == 0, np.inf, normal[:, 0])
    low, high = triangles[..., 0].min(axis=1), triangles[..., 0].max(axis=1)
    return np.clip(depth, low, high), np.where(normal[:, 0] > 0, 1.0, -1.0)  # clipped: planes almost along the line
