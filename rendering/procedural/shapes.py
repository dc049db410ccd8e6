# SPDX-License-Identifier: GPL-3.0-or-later
"""Closed surfaces with texture coordinates, as arrays. Lengths in metres, z up, objects face -y."""

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

Array = np.ndarray
Rng = np.random.Generator
Vector = tuple[float, float, float]


class Solid(NamedTuple):
    """A polygon mesh; faces run counter-clockwise seen from outside."""

    points: Array  # (points, 3)
    faces: list[tuple[int, ...]]
    uvs: Array  # (corners, 2), face by face in the order of `faces`


def placed(solid: Solid, at: Vector = (0, 0, 0), turn: Vector = (0, 0, 0), size: ArrayLike = (1, 1, 1)) -> Solid:
    """Return `solid` scaled by `size`, rotated about x, y, z in that order (degrees), and moved to `at`."""
    scale = np.asarray(size, float)
    points = solid.points * scale
    for axis, degrees in enumerate(turn):
        if degrees:
            cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
            i, j = (axis + 1) % 3, (axis + 2) % 3
            points[:, [i, j]] = np.stack(
                [points[:, i] * cos - points[:, j] * sin, points[:, i] * sin + points[:, j] * cos], axis=1
            )
    # A reflection reverses the orientation of the faces, so the order of their corners is reversed.
    if np.prod(scale) < 0:
        bounds = np.cumsum([len(face) for face in solid.faces])[:-1]
        uvs = np.concatenate([part[::-1] for part in np.split(solid.uvs, bounds)])
        solid = solid._replace(faces=[face[::-1] for face in solid.faces], uvs=uvs)
    return solid._replace(points=points + np.asarray(at, float))


def mirrored(solid: Solid) -> Solid:
    """Return `solid` mirrored at the plane x = 0."""
    return placed(solid, size=(-1, 1, 1))


def curve(knots: ArrayLike, steps: int = 6, closed: bool = False) -> Array:
    """Return a Catmull-Rom curve through the knots, with `steps` points between two of them."""
    knots = np.asarray(knots, float)
    if closed:
        padded = np.concatenate([knots[-1:], knots, knots[:2]])
    else:
        padded = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    t = (np.arange(steps) / steps)[None, :, None]
    a, b, c, d = (padded[i : len(padded) - 3 + i, None] for i in range(4))
    spans = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    points = spans.reshape(-1, knots.shape[1])
    return points if closed else np.concatenate([points, knots[-1:]])


def fractions(points: Array) -> Array:
    """Return the arc length along a polyline as fractions from 0 to 1."""
    lengths = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    return lengths / lengths[-1]


def loft(rings: Array) -> Solid:
    """Return a surface over rings of equally many points, closed at both ends; a ring of extent zero is a pole.

    `rings` is (rings, points, 3); each ring runs counter-clockwise seen against the direction of travel.
    """
    rings = np.asarray(rings, float)
    count, around = rings.shape[:2]
    poles = np.ptp(rings, axis=1).max(axis=1) < 1e-9
    starts = np.concatenate([[0], np.cumsum(np.where(poles, 1, around))])
    heights = fractions(np.where(poles[:, None], rings[:, 0], rings.mean(axis=1)) + 1e-9 * np.arange(count)[:, None])
    profile = rings[:, 0]
    if np.ptp(profile, axis=0).max() > 0:
        heights = fractions(profile + 1e-9 * np.arange(count)[:, None])
    points = np.concatenate([ring[:1] if pole else ring for ring, pole in zip(rings, poles, strict=True)])
    faces: list[tuple[int, ...]] = []
    uvs: list[tuple[float, float]] = []
    for i in range(count - 1):
        low, high, v, w = int(starts[i]), int(starts[i + 1]), heights[i], heights[i + 1]
        for j in range(around):
            k, left, right = (j + 1) % around, j / around, (j + 1) / around
            if poles[i] and poles[i + 1]:
                continue
            if poles[i]:
                faces.append((low, high + k, high + j))
                uvs += [((left + right) / 2, v), (right, w), (left, w)]
            elif poles[i + 1]:
                faces.append((low + j, low + k, high))
                uvs += [(left, v), (right, v), ((left + right) / 2, w)]
            else:
                faces.append((low + j, low + k, high + k, high + j))
                uvs += [(left, v), (right, v), (right, w), (left, w)]
    angles = 2 * np.pi * np.arange(around) / around
    disc = 0.5 + 0.5 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    if not poles[0]:
        faces.append(tuple(range(around - 1, -1, -1)))
        uvs += [tuple(uv) for uv in disc[::-1]]
    if not poles[-1]:
        faces.append(tuple(range(int(starts[-2]), int(starts[-1]))))
        uvs += [tuple(uv) for uv in disc]
    return Solid(points, faces, np.asarray(uvs))


def lathe(profile: ArrayLike, around: int = 24) -> Solid:
    """Return the surface of revolution of a profile of (radius, height) pairs about the z axis.

    The profile runs upwards on the outside (and may come down again inside); u starts at the back (+y).
    """
    profile = np.asarray(profile, float)
    angles = 2 * np.pi * np.arange(around) / around + np.pi / 2
    ring = np.stack([np.cos(angles), np.sin(angles), np.zeros(around)], axis=1)
    return loft(ring * profile[:, :1, None] + profile[:, 1][:, None, None] * np.array([0, 0, 1]))


def ball(radii: Vector | float = 1.0, around: int = 20) -> Solid:
    """Return an ellipsoid about the origin with its poles on the z axis."""
    angles = np.linspace(-np.pi / 2, np.pi / 2, around // 2 + 1)
    profile = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    profile[[0, -1], 0] = 0
    return placed(lathe(profile, around), size=np.broadcast_to(radii, 3))


def cylinder(radius: float, height: float, bevel: float | None = None, around: int = 24) -> Solid:
    """Return an upright cylinder on the origin, with rounded edges."""
    return cone(radius, radius, height, bevel, around)


def cone(low: float, high: float, height: float, bevel: float | None = None, around: int = 24) -> Solid:
    """Return an upright frustum on the origin: radius `low` at the bottom, `high` at the top."""
    b = 0.15 * min(max(low, high), height) if bevel is None else bevel
    low_rim = [(low - b, 0), (low - 0.3 * b, 0.3 * b), (low, b)] if 0 < b < low else [(low, 0)]
    high_rim = [(high, height - b), (high - 0.3 * b, height - 0.3 * b), (high - b, height)]
    high_rim = high_rim if 0 < b < high else [(high, height)]
    foot, top = [(0, 0)] if low else [], [(0, height)] if high else []
    return lathe([*foot, *low_rim, *high_rim, *top], around)


def ring(radius: float, thickness: float, around: int = 24, section: int = 10) -> Solid:
    """Return a torus about the z axis, with the radii `radius` of its circle and `thickness` of its tube."""
    us, vs = np.arange(around) / around, np.arange(section) / section
    u, v = (2 * np.pi * x for x in np.meshgrid(us, vs, indexing="ij"))
    reach = radius + thickness * np.cos(v)
    points = np.stack([reach * np.cos(u), reach * np.sin(u), thickness * np.sin(v)], axis=-1).reshape(-1, 3)
    faces, uvs = [], []
    for i in range(around):
        for j in range(section):
            corners = [(i, j), (i + 1, j), (i + 1, j + 1), (i, j + 1)]
            faces.append(tuple((a % around) * section + b % section for a, b in corners))
            uvs += [(a / around, b / section) for a, b in corners]
    return Solid(points, faces, np.asarray(uvs))


def tube(path: ArrayLike, radii: ArrayLike, around: int = 10, aspect: float = 1.0) -> Solid:
    """Return a tube with round ends along a polyline; `radii` is one radius, or one for each point.

    `aspect` widens the section sideways, across both the path and the vertical.
    """
    centres = np.asarray(path, float)
    reach = np.broadcast_to(np.asarray(radii, float), len(centres))
    tangents = np.gradient(centres, axis=0)
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
    ends = np.radians([90, 60, 30])
    centres = np.concatenate(
        [
            centres[:1] - tangents[:1] * reach[0] * np.sin(ends)[:, None],
            centres,
            centres[-1:] + tangents[-1:] * reach[-1] * np.sin(ends[::-1])[:, None],
        ]
    )
    reach = np.concatenate([reach[0] * np.cos(ends), reach, reach[-1] * np.cos(ends[::-1])])
    reach[[0, -1]] = 0
    tangents = np.concatenate([tangents[:1].repeat(3, 0), tangents, tangents[-1:].repeat(3, 0)])
    start = np.cross([0, 0, 1], tangents[0])
    across = start / np.linalg.norm(start) if np.linalg.norm(start) > 0.1 else np.array([1.0, 0, 0])
    angles = 2 * np.pi * np.arange(around)[:, None] / around
    rings = []
    # The frame follows the path with minimal rotation about it.
    for centre, radius, tangent in zip(centres, reach, tangents, strict=True):
        across = across - tangent * (across @ tangent)
        across /= np.linalg.norm(across)
        up = np.cross(tangent, across)
        rings.append(centre + radius * (aspect * np.cos(angles) * across + np.sin(angles) * up))
    return loft(np.stack(rings))


@cache
def _cube_lattice() -> tuple[Array, Array, Array]:
    """Return corners `[faces, 4]` of a cube of 3x3 quads a side on a 4x4x4 grid, and the two axes of each face."""
    faces, axes = [], []
    for axis in range(3):
        # Side faces have v upwards: (u, v) is (y, z), (x, z) or (x, y).
        u, v = [(1, 2), (0, 2), (0, 1)][axis]
        for level in (0, 3):
            outward = (level == 3) != (axis == 1)
            for i in range(3):
                for j in range(3):
                    square = [(i, j), (i + 1, j), (i + 1, j + 1), (i, j + 1)]
                    lattice = np.zeros((4, 3), int)
                    lattice[:, axis], lattice[:, [u, v]] = level, square if outward else square[::-1]
                    faces.append(lattice @ [16, 4, 1])
                    axes.append((u, v))
    corners = np.asarray(faces)
    used, inverse = np.unique(corners, return_inverse=True)
    return used, inverse.reshape(corners.shape), np.asarray(axes)


def box(size: Vector, bevel: float | None = None, grain: bool = False) -> Solid:
    """Return a box about the origin with rounded edges; its texture is upright, 0 to 1 over the longest side.

    With `grain`, u follows the longer side of every face, as the fibres of a board do.
    """
    half = np.asarray(size, float) / 2
    b = min(0.2 * half.min() if bevel is None else bevel, 0.95 * half.min())
    used, corners, axes = _cube_lattice()
    steps = np.stack([-half, b - half, half - b, half])
    lattice = np.stack([steps[used // 16, 0], steps[used // 4 % 4, 1], steps[used % 4, 2]], axis=1)
    inner = np.clip(lattice, b - half, half - b)
    out = lattice - inner
    points = inner + b * out / np.linalg.norm(out, axis=1, keepdims=True)
    if grain:
        axes = np.where((half[axes[:, 0]] < half[axes[:, 1]])[:, None], axes[:, ::-1], axes)
    flat = (lattice + half) / (2 * half.max())
    uvs = np.take_along_axis(flat[corners], axes[:, None, :].repeat(4, 1), axis=2)
    return Solid(points, [tuple(face) for face in corners.tolist()], uvs.reshape(-1, 2))


def prism(outline: ArrayLike, depth: float, axis: str = "z", bevel: float = 0.02) -> Solid:
    """Return an outline extruded by `depth` about the origin, with rounded edges.

    The outline is in (x, y) for axis z, (y, z) for axis x (a side view), (x, z) for axis y (a front view).
    """
    flat = np.asarray(outline, float)
    area = np.sum(flat[:, 0] * np.roll(flat[:, 1], -1) - flat[:, 1] * np.roll(flat[:, 0], -1))
    flat = flat if area > 0 else flat[::-1]
    edges = np.roll(flat, -1, axis=0) - flat
    edges /= np.linalg.norm(edges, axis=1, keepdims=True)
    inward = np.stack([-edges[:, 1], edges[:, 0]], axis=1)
    inward = inward + np.roll(inward, 1, axis=0)
    inward /= np.maximum(np.linalg.norm(inward, axis=1, keepdims=True), 0.3)
    levels = [(1.0, -depth / 2), (0.3, 0.3 * bevel - depth / 2), (0.0, bevel - depth / 2)]
    levels += [(inset, -height) for inset, height in levels[::-1]]
    rings = [np.column_stack([flat + k * bevel * inward, np.full(len(flat), h)]) for k, h in levels]
    solid = loft(np.stack(rings))
    extent = np.ptp(flat, axis=0).max()
    index = np.concatenate(solid.faces)
    lengths = np.linalg.norm(np.roll(flat, -1, axis=0) - flat, axis=1).sum() / extent
    planar = (solid.points[index, :2] - flat.min(axis=0)) / extent
    wall = np.arange(len(index)) < 4 * len(flat) * (len(levels) - 1)
    around = np.stack([solid.uvs[:, 0] * lengths, solid.points[index, 2] / extent], axis=1)
    points = solid.points[:, {"x": [2, 0, 1], "y": [0, 2, 1], "z": [0, 1, 2]}[axis]]
    points = points * ((1, -1, 1) if axis == "y" else (1, 1, 1))
    return Solid(points, solid.faces, np.where(wall[:, None], around, planar))
