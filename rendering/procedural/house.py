# SPDX-License-Identifier: GPL-3.0-or-later
"""A house on its lawn, the door towards -y."""

import numpy as np

from rendering.procedural import patterns
from rendering.procedural.colours import BRASS, LEAF, Colour, hsv, palette, plain, shade, textured
from rendering.procedural.scene import add, both
from rendering.procedural.shapes import Rng, ball, box, curve, cylinder, lathe, prism

WINDOW: Colour = (0.98, 0.83, 0.42)


def window(x: float, y: float, z: float, turn: float, frame: Colour) -> None:
    """Add a lit window with a cross bar; turned about z from facing -y."""
    add(box((0.26, 0.05, 0.3), 0.015), plain(frame), (x, y, z), (0, 0, turn))
    for dx in (-0.055, 0.055):
        for dz in (-0.062, 0.062):
            c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
            add(
                box((0.09, 0.066, 0.1), 0.01),
                plain(WINDOW, 0.3),
                (x + c * dx, y + s * dx, z + dz),
                (0, 0, turn),
            )


def island(rng: Rng, x: float, y: float) -> None:
    """Add a round lawn of half axes x and y at ground level, on a clod of layered earth."""
    lawn = textured(patterns.mottled(rng, LEAF, 0.07, 4), 0.9)
    add(cylinder(1, 0.08, 0.03, 32), lawn, (0, 0, -0.07), size=(x, y, 1), tile=(2, 2))
    layers = [hsv(0.06, 0.6, 0.5), hsv(0.08, 0.62, 0.68), hsv(0.06, 0.6, 0.56), hsv(0.09, 0.58, 0.76)]
    clod = [(0, -0.3), *curve([(0.3, -0.3), (0.72, -0.2), (0.93, -0.05)], 3), (0, -0.03)]
    add(lathe(clod, 32), textured(patterns.bands([*layers, layers[3], layers[3]]), 0.9), size=(x, y, 1))


def house(rng: Rng) -> None:
    """Add a house on a lawn to the scene."""
    colours = palette(rng, 4)
    width, depth, wall, rise = (
        rng.uniform(0.95, 1.2),
        rng.uniform(0.85, 1.05),
        rng.uniform(0.6, 0.95),
        rng.uniform(0.42, 0.7),
    )
    walls = [
        patterns.bricks(rng, hsv(rng.uniform(0.0, 0.06), 0.6, 0.78), (0.84, 0.78, 0.68), 10),
        patterns.planks(rng, shade(colours[0], 1.2), 7),
        patterns.mottled(rng, shade(colours[0], 1.35), 0.04, 9),
    ][rng.integers(3)]
    skin, trim = textured(walls, 0.85), shade(colours[1], 1.6)
    outline = [(-width / 2, 0), (width / 2, 0), (width / 2, wall), (0, wall + rise), (-width / 2, wall)]
    add(prism(outline, depth, "y", 0.02), skin, tile=(1.3, 1.3))
    tiles = textured(patterns.scales(shade(colours[2], 0.6), colours[2], 8), 0.8)
    slope = np.degrees(np.arctan2(rise, width / 2))
    long = np.hypot(rise, width / 2) + 0.16
    reach = np.array([np.cos(np.radians(slope)), 0, -np.sin(np.radians(slope))]) * (long / 2 - 0.02)
    both(
        box((long, depth + 0.24, 0.075), 0.025),
        tiles,
        (reach[0], 0, wall + rise + reach[2] + 0.03),
        (0, slope, 0),
    )
    add(box((0.12, depth + 0.26, 0.1), 0.035), plain(shade(colours[2], 0.7)), (0, 0, wall + rise + 0.05))
    side = rng.choice([-1, 1])
    stack = textured(patterns.bricks(rng, (0.72, 0.36, 0.28), (0.8, 0.74, 0.66), 6))
    add(box((0.17, 0.17, 0.5), 0.015), stack, (side * width * 0.27, depth * 0.22, wall + rise * 0.62 + 0.14))
    add(
        box((0.22, 0.22, 0.06), 0.02),
        plain(shade(colours[2], 0.7)),
        (side * width * 0.27, depth * 0.22, wall + rise * 0.62 + 0.4),
    )
    front = -depth / 2
    add(box((0.32, 0.05, 0.5), 0.015), plain(trim), (-side * 0.2 * width, front, 0.26))
    add(box((0.25, 0.08, 0.45), 0.015), plain(colours[3]), (-side * 0.2 * width, front, 0.24))
    add(ball(0.025, 8), plain(BRASS, 0.3), (-side * 0.2 * width + 0.08, front - 0.05, 0.23))
    add(box((0.42, 0.26, 0.07), 0.02), plain((0.66, 0.64, 0.62)), (-side * 0.2 * width, front - 0.1, 0.0))
    window(side * 0.25 * width, front, wall * 0.55, 0, trim)
    for y in (-0.22, 0.22)[: int(rng.integers(1, 3))]:
        window(width / 2, y * depth, wall * 0.55, 90, trim)
        window(-width / 2, -y * depth, wall * 0.55, 90, trim)
    window(0.2 * width, -front, wall * 0.55, 0, trim)
    add(
        cylinder(0.12, depth + 0.06, 0.01, 20),
        plain(WINDOW, 0.3),
        (0, depth / 2 + 0.03, wall + rise * 0.3),
        (90, 0, 0),
    )
    island(rng, width / 2 + 0.32, depth / 2 + 0.36)
    bush = textured(patterns.dots(hsv(0.33, 0.7, 0.5), colours[0], 6, 0.2), 0.9)
    add(ball((0.17, 0.15, 0.17), 14), bush, (side * 0.32 * width, front - 0.14, 0.08))
    add(ball((0.13, 0.13, 0.2), 14), bush, (-side * (width / 2 + 0.1), depth * 0.3, 0.1))
