# SPDX-License-Identifier: GPL-3.0-or-later
"""Objects of no kind: random parts with random surfaces, joined at random.

Trained on named kinds alone, a model learns these kinds. Random composites teach it shapes instead; Xie et al. 2024
(LRM-Zero, arXiv 2406.09371) train a reconstruction model on them alone.
"""

import numpy as np

from rendering.procedural import patterns
from rendering.procedural.colours import Colour, Material, palette, plain, shade, textured
from rendering.procedural.scene import add, both
from rendering.procedural.shapes import (
    Array,
    Rng,
    Solid,
    ball,
    box,
    cone,
    curve,
    cylinder,
    lathe,
    placed,
    prism,
    ring,
    tube,
)

ADDED = (2, 8)  # parts that are attached to the first one: from 2 up to and without 8
SHRINK = 0.72  # mean size of a part, as a factor of the size of the part that it is attached to
OVERLAP = 0.8  # distance of a part from the middle of the other, as a factor of the distance of their surfaces


def composite(rng: Rng) -> None:
    """Add a composite of three to eight parts to the scene, in half of the cases with mirror images beside them."""
    colours = palette(rng, 4)
    materials = [_material(rng, colours) for _ in range(rng.integers(2, 5))]
    mirrored = rng.uniform() < 0.5
    middles, sizes = [np.zeros(3)], [rng.uniform(0.55, 0.9)]
    extents = [sizes[0] * _proportions(rng)]
    add(_scaled(rng, extents[0]), materials[0], tile=_tile(rng))
    for _ in range(rng.integers(*ADDED)):
        parent = rng.integers(len(middles))
        size = max(0.12, sizes[parent] * SHRINK * np.exp(0.3 * rng.standard_normal()))
        extent, direction = size * _proportions(rng), _unit(rng)
        reach = _reach(extents[parent], direction) + _reach(extent, direction)
        middle = middles[parent] + OVERLAP * reach * direction
        place = both if mirrored and abs(middle[0]) > 0.2 * size else add
        place(_scaled(rng, extent), materials[rng.integers(len(materials))], tuple(middle), _turn(rng), tile=_tile(rng))
        middles, sizes, extents = [*middles, middle], [*sizes, size], [*extents, extent]


def _part(rng: Rng) -> Solid:
    """Return a random solid of any size."""
    return [
        lambda: box((1, 1, 1), rng.uniform(0.02, 0.4)),
        lambda: ball(0.5, 22),
        lambda: cylinder(0.5, 1, rng.uniform(0.02, 0.3)),
        lambda: cone(0.5, rng.uniform(0, 0.4), 1, rng.uniform(0.02, 0.2)),
        lambda: ring(0.5, rng.uniform(0.1, 0.3)),
        lambda: prism(_outline(rng), rng.uniform(0.2, 0.8), str(rng.choice(list("xyz"))), 0.03),
        lambda: lathe(_profile(rng)),
        lambda: tube(curve(rng.uniform(-0.5, 0.5, (4, 3)), 5), rng.uniform(0.08, 0.2, 16), 12),
    ][rng.integers(8)]()


def _scaled(rng: Rng, extent: Array) -> Solid:
    """Return a random solid about the origin with the extent of an ellipsoid's axes."""
    solid = _part(rng)
    low, high = solid.points.min(axis=0), solid.points.max(axis=0)
    centred = solid._replace(points=solid.points - (low + high) / 2)
    return placed(centred, size=extent / np.maximum(high - low, 1e-3))


def _outline(rng: Rng) -> Array:
    """Return a polygon that is star-shaped about the origin."""
    corners = int(rng.integers(3, 9))
    angles = 2 * np.pi * (np.arange(corners) + rng.uniform(-0.25, 0.25, corners)) / corners
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * rng.uniform(0.35, 1, (corners, 1))


def _profile(rng: Rng) -> Array:
    """Return radii and heights of a closed vessel or a baluster."""
    radii = curve(np.stack([rng.uniform(0.15, 1, 5), np.linspace(0, 2, 5)], axis=1), 5)
    return np.concatenate([[[0, 0]], np.maximum(radii, (0.05, 0)), [[0, 2]]])


def _material(rng: Rng, colours: list[Colour]) -> Material:
    """Return a plain colour or one of the patterns, in some of the colours."""
    a, b = (colours[i] for i in rng.permutation(len(colours))[:2])
    roughness = rng.uniform(0.3, 0.9)
    if rng.uniform() < 0.25:
        return plain(a, roughness)
    pixels = [
        lambda: patterns.mottled(rng, a, 0.1, 8),
        lambda: patterns.wood(rng, a),
        lambda: patterns.planks(rng, a),
        lambda: patterns.bands([a, b, shade(a, 0.6), shade(b, 1.4)]),
        lambda: patterns.bricks(rng, a, b),
        lambda: patterns.scales(a, b),
        lambda: patterns.patches(rng, a, b, rng.uniform(0.2, 0.6)),
        lambda: patterns.cloth(rng, [a, b, shade(b, 0.5)]),
    ][rng.integers(8)]()
    return textured(pixels, roughness)


def _proportions(rng: Rng) -> Array:
    """Return factors of the three axes with a product of 1, in the ratio of one to five at most."""
    logarithms = rng.uniform(-0.8, 0.8, 3)
    return np.exp(logarithms - logarithms.mean())


def _reach(extent: Array, direction: Array) -> float:
    """Return the distance from the middle of an ellipsoid to its surface."""
    return float(0.5 / np.linalg.norm(direction / extent))


def _unit(rng: Rng) -> Array:
    direction = rng.standard_normal(3)
    return direction / np.linalg.norm(direction)


def _turn(rng: Rng) -> tuple[float, float, float]:
    """Return angles about x, y and z, degrees: upright for most parts, any for others."""
    if rng.uniform() < 0.6:
        return 0.0, 0.0, float(90 * rng.integers(4))
    x, y, z = rng.uniform(-180, 180, 3)
    return float(x), float(y), float(z)


def _tile(rng: Rng) -> tuple[float, float]:
    return float(rng.integers(1, 4)), float(rng.integers(1, 4))
