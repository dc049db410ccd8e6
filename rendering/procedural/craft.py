# SPDX-License-Identifier: GPL-3.0-or-later
"""Airplane, boat and rocket, their noses towards -y."""

import numpy as np

from rendering.procedural import patterns
from rendering.procedural.colours import (
    BRASS,
    CREAM,
    STEEL,
    Colour,
    Material,
    hsv,
    palette,
    plain,
    shade,
    textured,
)
from rendering.procedural.scene import add, both
from rendering.procedural.shapes import (
    Rng,
    Solid,
    ball,
    box,
    cone,
    curve,
    cylinder,
    lathe,
    loft,
    placed,
    prism,
    ring,
    tube,
)
from rendering.procedural.vehicles import GLASS, RUBBER, TAILLIGHT


def airplane(rng: Rng) -> None:
    """Add an airplane with one or two pairs of wings to the scene."""
    colours = palette(rng, 3)
    length, span, r = rng.uniform(1.5, 1.75), rng.uniform(1.5, 1.85), rng.uniform(0.23, 0.28)
    half = length / 2
    livery = [
        patterns.stripes(colours[0], shade(colours[1], 1.5), 3, "v", 0.35),
        patterns.stripes(colours[0], shade(colours[1], 1.4), 4, "u", 0.4),
        patterns.checker(colours[0], shade(colours[0], 1.7), 8),
    ][rng.integers(3)]
    spine = curve([(0, -half, 0), (0, -0.6 * half, 0), (0, 0.1 * half, 0.02), (0, half, 0.14)], 4)
    along = np.linspace(0, 1, len(spine))
    radii = r * np.interp(along, [0, 0.12, 0.35, 0.6, 1], [0.72, 0.95, 1.0, 0.85, 0.3])
    add(tube(spine, radii, 20), textured(livery, 0.35))
    wing = textured(patterns.bands([colours[1], shade(colours[1], 1.5), colours[1], colours[0]]), 0.4)
    _wings(rng, wing, span, r, colours)
    tail = curve([(0, half - 0.36), (0.42, half - 0.1), (0.42, half + 0.08), (0, half + 0.02)], 1)
    both(prism(tail, 0.06, bevel=0.02), plain(colours[1], 0.4), (0, 0, 0.14))
    fin = [(half - 0.4, 0.15), (half + 0.02, 0.15), (half + 0.1, 0.58), (half - 0.1, 0.58)]
    add(prism(fin, 0.07, "x", 0.02), textured(patterns.stars(colours[2], CREAM, 2)), tile=(1, 1))
    add(ball((r * 0.72, 0.4, r * 0.85), 18), plain(GLASS, 0.15), (0, -0.18 * half, r * 0.75))
    both(ball((0.03, 0.07, 0.07), 10), plain(GLASS, 0.15), (r * 0.96, 0.14 * half, 0.06))
    both(ball((0.03, 0.07, 0.07), 10), plain(GLASS, 0.15), (r * 0.9, 0.36 * half, 0.08))
    add(cylinder(r * 0.86, 0.14, 0.03, 20), plain(colours[2], 0.35), (0, -half + 0.02, 0), (90, 0, 0))
    add(
        lathe([(0, 0), *curve([(0.08, 0), (0.065, 0.1), (0, 0.18)], 3)], 14),
        plain(BRASS, 0.3),
        (0, -half - 0.12, 0),
        (90, 0, 0),
    )
    blades, spin = int(rng.integers(2, 5)), rng.uniform(0, 120)
    for k in range(blades):
        blade = placed(ball((0.06, 0.022, 0.23), 12), (0, 0, 0.25), (0, 0, 25))
        add(blade, plain(hsv(0.08, 0.65, 0.6)), (0, -half - 0.16, 0), (0, spin + 360 * k / blades, 0))
    both(tube([(0.12, -0.5 * half, -0.1), (0.26, -0.55 * half, -r - 0.16)], 0.03, 8), plain(STEEL))
    both(cylinder(0.12, 0.09, 0.03, 16), plain(RUBBER), (0.24, -0.55 * half, -r - 0.16), (0, 90, 0))
    add(ball((0.04, 0.07, 0.07), 10), plain(RUBBER), (0, half - 0.08, -0.0))


def _wings(rng: Rng, skin: Material, span: float, r: float, colours: list[Colour]) -> None:
    """Add one pair of wings, low or high, or two pairs with struts."""
    chord, sweep = rng.uniform(0.5, 0.62), rng.uniform(-0.02, 0.24)
    tip = chord * rng.uniform(0.55, 0.9)
    half = span / 2
    plan = [
        (0, -chord / 2 - 0.1),
        (half - 0.06, sweep - tip / 2 - 0.1),
        (half, sweep - 0.1),
        (half - 0.06, sweep + tip / 2 - 0.1),
        (0, chord / 2 - 0.1),
    ]
    wing = prism(plan, 0.085, bevel=0.03)
    levels = [[-0.1], [r * 0.8], [-0.12, r + 0.3]][rng.integers(3)]
    for z in levels:
        both(wing, skin, (0, -0.1, z), (0, -3, 0), tile=(2, 1))
        both(box((0.1, tip * 0.8, 0.11), 0.04), plain(colours[2], 0.4), (half - 0.04, sweep - 0.2, z + 0.05))
    if len(levels) == 2:
        for x in (0.35, 0.75):
            strut = np.array([(half * x, -0.2 + sweep * x, levels[0]), (half * x, -0.2 + sweep * x, levels[1] + 0.05)])
            both(tube(strut, 0.024, 8), plain(hsv(0.08, 0.6, 0.6)))


def boat(rng: Rng) -> None:
    """Add a sailing boat to the scene."""
    colours = palette(rng, 4)
    length, beam, depth = rng.uniform(1.3, 1.7), rng.uniform(0.56, 0.72), rng.uniform(0.3, 0.38)
    coat = colours[0] if rng.uniform() < 0.6 else hsv(0.07, 0.65, 0.75)
    add(_hull(length, beam, depth), textured(patterns.planks(rng, coat, 5)), tile=(4, 1))
    rim = placed(_hull(length * 1.02, beam * 1.06, depth), (0, 0, depth * 0.9), size=(1, 1, 0.13))
    add(rim, plain(shade(colours[1], 1.2)))
    deck = placed(_hull(length * 0.96, beam * 0.92, depth), (0, 0, depth * 0.97), size=(1, 1, 0.1))
    add(deck, textured(patterns.planks(rng, hsv(0.1, 0.5, 0.85), 6)), tile=(1, 1))
    y = rng.uniform(0.18, 0.28) * length
    add(box((beam * 0.5, 0.34, 0.2), 0.04), plain(shade(colours[3], 1.25)), (0, y, depth + 0.13))
    add(box((beam * 0.6, 0.42, 0.05), 0.02), plain(colours[1]), (0, y, depth + 0.24))
    both(cylinder(0.055, 0.04, 0.01, 14), plain(GLASS, 0.2), (beam * 0.25 - 0.02, y, depth + 0.13), (0, 90, 0))
    tall, mast = rng.uniform(1.15, 1.5), -0.08
    spar = textured(patterns.wood(rng, hsv(0.07, 0.6, 0.6)))
    add(tube([(0, mast, depth * 0.5), (0, mast, depth + tall + 0.08)], 0.03, 10), spar)
    foot = depth + 0.32
    add(tube([(0, mast, foot), (0, length * 0.5, foot)], 0.024, 8), spar)
    sail = textured(patterns.cloth(rng, [shade(colours[2], 1.0), *colours[:2]]), 0.8)
    main = [
        (mast + 0.05, foot + 0.04),
        (length * 0.48, foot + 0.05),
        (length * 0.27, foot + 0.45 * (tall - 0.2)),
        (mast + 0.05, depth + tall),
    ]
    add(_bulged(main, 0.12), sail, tile=(1.3, 1.3))
    jib = [(mast - 0.06, foot), (mast - 0.05, depth + 0.86 * tall), (-length * 0.5, depth + 0.16)]
    add(_bulged(jib, 0.08), textured(patterns.stripes(shade(colours[3], 1.5), colours[3], 4, "v"), 0.8))
    flag = [(mast, 0), (mast + 0.3, 0.08), (mast, 0.17)]
    add(prism(flag, 0.025, "x", 0.01), plain(TAILLIGHT), (0, 0, depth + tall))
    both(
        ring(0.085, 0.03, 16, 6),
        textured(patterns.stripes(CREAM, (0.9, 0.25, 0.15), 4)),
        (beam * 0.47, -0.06 * length, depth * 0.78),
        (0, 75, 0),
    )
    add(box((0.03, 0.16, depth * 0.9), 0.012), spar, (0, length * 0.5, depth * 0.4))


def _hull(length: float, beam: float, depth: float) -> Solid:
    """Return a round hull with a pointed bow at -y and a flat stern, its top at z = depth."""
    stations = np.linspace(0, 1, 12)
    width = (
        beam
        / 2
        * np.sin(np.pi / 2 * np.minimum(1, 1.75 * stations + 0.02)) ** 0.8
        * (1 - 0.25 * np.maximum(0, stations - 0.6))
    )
    keel = depth * 0.75 * (1 - stations) ** 4
    sheer = depth * (1 + 0.28 * (1 - stations) ** 2 + 0.06 * stations**2)
    angles = np.linspace(np.pi, 2 * np.pi, 11)
    section = np.stack([np.cos(angles), 1 + np.sin(angles)], axis=1)
    section[:, 0] = np.sign(section[:, 0]) * np.abs(section[:, 0]) ** 0.7
    rings = []
    for s, w, k, top in zip(stations, width, keel, sheer, strict=True):
        rings.append(
            np.column_stack([w * section[:, 0], np.full(11, (s - 0.5) * length), k + (top - k) * section[:, 1]])
        )
    return loft(np.stack(rings)[:, ::-1])


def _bulged(outline: list[tuple[float, float]], amount: float) -> Solid:
    """Return a sail in the (y, z) plane, its middle blown towards +x."""
    flat = np.asarray(outline)
    dense = np.concatenate(
        [a + (b - a) * np.linspace(0, 1, 5)[:-1, None] for a, b in zip(flat, np.roll(flat, -1, 0), strict=True)]
    )
    centre = flat.mean(axis=0)
    shrunk = [centre + (dense - centre) * k for k in (1.0, 1.0, 0.75, 0.4, 0.0)]
    heights = amount * (1 - np.array([1.0, 1.0, 0.75, 0.4, 0.0]) ** 2)
    front = [np.column_stack([np.full(len(dense), h + 0.012), p]) for h, p in zip(heights[1:], shrunk[1:], strict=True)]
    back = [np.column_stack([np.full(len(dense), h - 0.012), p]) for h, p in zip(heights[1:], shrunk[1:], strict=True)]
    area = np.sum(flat[:, 0] * np.roll(flat[:, 1], -1) - flat[:, 1] * np.roll(flat[:, 0], -1))
    sail = loft(np.stack(back[::-1] + front)[:, :: 1 if area > 0 else -1])
    corners = sail.points[np.concatenate(sail.faces)][:, 1:]
    return sail._replace(uvs=(corners - flat.min(axis=0)) / np.ptp(flat, axis=0).max())


def rocket(rng: Rng) -> None:
    """Add a rocket to the scene."""
    colours = palette(rng, 3)
    height, r = rng.uniform(1.3, 1.6), rng.uniform(0.26, 0.34)
    knots = [(r * 0.72, 0.12), (r, height * 0.36), (r * 0.86, height * 0.7), (r * 0.45, height * 0.9)]
    skin = [
        patterns.bands([colours[0], shade(colours[1], 1.6), colours[0], shade(colours[1], 1.6), colours[0]]),
        patterns.checker(colours[0], shade(colours[1], 1.6), 6),
        patterns.stripes(colours[0], shade(colours[1], 1.6), 6),
        patterns.stars(colours[0], shade(colours[1], 1.7), 4),
    ][rng.integers(4)]
    add(lathe([(0, 0.12), *curve(knots, 6), (0, height * 0.9)], 32), textured(skin, 0.35), tile=(2, 1))
    tip = [(r * 0.47, 0), (r * 0.3, height * 0.1), (0.02, height * 0.2), (0, height * 0.21)]
    add(lathe([(0, -0.01), *curve(tip, 3)], 28), plain(colours[2], 0.35), (0, 0, height * 0.89))
    add(ball(0.05, 12), plain(BRASS, 0.3), (0, 0, height * 1.1))
    add(ring(r * 0.76, 0.04, 28, 8), plain(colours[2], 0.35), (0, 0, 0.14))
    add(cone(r * 0.62, r * 0.4, 0.16, 0.02), plain(STEEL, 0.3), (0, 0, 0))
    flame = lathe([(0, -0.34), *curve([(0.02, -0.32), (r * 0.42, -0.1), (r * 0.4, 0.03)], 4), (0, 0.03)], 18)
    add(flame, textured(patterns.bands([(0.95, 0.25, 0.1), (1.0, 0.55, 0.1), (1.0, 0.8, 0.2)]), 0.8))
    fins, reach = int(rng.integers(3, 5)), r * rng.uniform(0.9, 1.3)
    fin = [
        (r * 0.6, 0.5),
        (r * 0.6, 0.14),
        (r + reach, -0.16),
        (r + reach * 1.02, 0.06),
        (r + reach * 0.5, 0.4),
    ]
    for k in range(fins):
        add(prism(fin, 0.07, "y", 0.02), plain(colours[2], 0.4), turn=(0, 0, 360 * k / fins + 90))
    for z, size in ((0.66, 0.15), (0.42, 0.11))[: int(rng.integers(1, 3))]:
        y = -float(np.interp(z * height, [k[1] for k in knots], [k[0] for k in knots])) - 0.01
        add(ring(size, 0.035, 22, 8), plain(BRASS, 0.3), (0, y, z * height), (90, 0, 0))
        add(ball((size, 0.05, size), 16), plain(GLASS, 0.15), (0, y, z * height))
    add(box((0.2, 0.06, 0.36), 0.03), plain(shade(colours[2], 0.8)), (0, r - 0.02, height * 0.42), (4, 0, 0))
    add(ball(0.03, 8), plain(BRASS), (0.06, r + 0.03, height * 0.42))
    if rng.uniform() < 0.5:
        booster = lathe([(0, 0), (0.11, 0), *curve([(0.11, 0.5), (0.07, 0.62), (0, 0.7)], 4)], 16)
        both(booster, plain(shade(colours[0], 1.4), 0.4), (r + 0.06, 0.0, 0.08))
