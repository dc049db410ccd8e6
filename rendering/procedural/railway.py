# SPDX-License-Identifier: GPL-3.0-or-later
"""Steam locomotive, its front towards -y."""

import numpy as np

from rendering.procedural import patterns
from rendering.procedural.colours import BRASS, DARK, STEEL, Colour, palette, plain, shade, textured
from rendering.procedural.scene import add, both
from rendering.procedural.shapes import (
    Rng,
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
from rendering.procedural.vehicles import HEADLIGHT


def locomotive(rng: Rng) -> None:
    """Add a steam locomotive to the scene."""
    colours = palette(rng, 3)
    boiler, r = rng.uniform(0.9, 1.15), rng.uniform(0.24, 0.29)
    z, front = 0.46 + r, -boiler + 0.1
    trim, iron = plain(colours[1], 0.4), plain((0.26, 0.27, 0.33), 0.5)
    hoops = [
        patterns.stripes(colours[0], BRASS, int(rng.integers(3, 6)), "v", 0.16),
        patterns.stripes(colours[0], shade(colours[0], 1.4), int(rng.integers(3, 6)), "v", 0.45),
        patterns.stripes(colours[0], colours[2], int(rng.integers(3, 6)), "v", 0.3),
    ][rng.integers(3)]
    add(cylinder(r, boiler, 0.02, 28), textured(hoops, 0.35), (0, 0.12, z), (90, 0, 0))
    add(cylinder(r * 1.04, 0.14, 0.03, 28), iron, (0, front + 0.06, z), (90, 0, 0))
    add(cylinder(r * 0.6, 0.04, 0.02, 20), trim, (0, front - 0.07, z), (90, 0, 0))
    add(box((0.62, boiler + 0.85, 0.13), 0.03), trim, (0, 0.22 - boiler / 2 + 0.25, 0.38))
    _cab(rng, colours, z)
    _stacks(rng, colours, front, z + r)
    add(cylinder(0.085, 0.1, 0.02, 16), plain(BRASS, 0.3), (0, front + 0.02, z + r * 0.72 + 0.1), (90, 0, 0))
    add(ball((0.07, 0.03, 0.07), 12), plain(HEADLIGHT, 0.2), (0, front - 0.08, z + r * 0.72 + 0.1))
    plough = [(front - 0.36, 0.06), (front - 0.02, 0.06), (front - 0.02, 0.36), (front - 0.14, 0.36)]
    catcher = prism(plough, 0.6, "x", 0.02)
    narrow = 1 - 0.55 * np.clip((front - catcher.points[:, 1]) / 0.36, 0, 1)
    catcher.points[:, 0] *= narrow
    add(catcher, textured(patterns.stripes(shade(colours[2], 1.1), DARK, 7, "u", 0.3)))
    both(cylinder(0.05, 0.1, 0.02, 12), plain(STEEL, 0.4), (0.2, front - 0.05, 0.4), (90, 0, 0))
    _wheels(boiler, front, shade(colours[2], 1.1))


def _cab(rng: Rng, colours: list[Colour], z: float) -> None:
    """Add a driver's cab and a coal bunker behind the boiler."""
    tall = rng.uniform(0.78, 0.92)
    walls = textured(patterns.bands([colours[1], colours[0], colours[0], colours[0]]), 0.4)
    add(box((0.64, 0.46, tall), 0.03), walls, (0, 0.32, 0.42 + tall / 2))
    both(box((0.03, 0.24, 0.24), 0.012), plain((0.98, 0.83, 0.45), 0.3), (0.32, 0.32, 0.42 + tall * 0.7))
    for y in (0.085, 0.555):
        both(box((0.15, 0.03, 0.16), 0.012), plain((0.98, 0.83, 0.45), 0.3), (0.2, y, 0.42 + tall * 0.78))
    arch = [(-0.38, 0), (0.38, 0), *curve([(0.38, 0.06), (0, 0.17), (-0.38, 0.06)], 4)]
    add(prism(arch, 0.6, "y", 0.025), plain(colours[2], 0.5), (0, 0.32, 0.42 + tall - 0.02))
    add(box((0.6, 0.34, 0.36), 0.04), walls, (0, 0.7, 0.58))
    coal = plain((0.22, 0.22, 0.28), 0.7)
    for k in range(6):
        place = ((k % 3 - 1) * 0.17, 0.63 + 0.14 * (k // 3), 0.77 + 0.03 * (k % 2))
        add(ball(rng.uniform(0.09, 0.12), 8), coal, place, (20 * k, 0, 0))


def _stacks(rng: Rng, colours: list[Colour], front: float, top: float) -> None:
    """Add chimney, steam dome and bell along the top of the boiler."""
    tall, flare = rng.uniform(0.26, 0.4), rng.uniform(0.1, 0.19)
    iron = plain((0.26, 0.27, 0.33), 0.5)
    add(cone(0.085, flare, tall, 0.01, 20), iron, (0, front + 0.16, top - 0.03))
    add(ring(flare, 0.032, 20, 8), plain(colours[1], 0.35), (0, front + 0.16, top + tall - 0.03))
    for k, puff in enumerate(rng.uniform(0.1, 0.15, 3)):
        place = (0.02 * k, front + 0.16 + 0.13 * k, top + tall + 0.1 + 0.12 * k)
        add(ball(puff, 12), plain((0.78, 0.83, 0.9), 0.9), place)
    dome = [(0.13, 0), (0.13, 0.12), (0.1, 0.2), (0, 0.24)]
    add(
        lathe([(0, -0.05), (0.13, -0.05), *curve(dome, 3)], 20),
        plain(BRASS, 0.25),
        (0, front * 0.45 + 0.05, top - 0.02),
    )
    add(cylinder(0.06, 0.15, 0.02, 14), plain(colours[2], 0.35), (0, -0.07, top - 0.03))


def _wheels(boiler: float, front: float, colour: Colour) -> None:
    """Add spoked driving wheels with their rod, and small wheels in front."""
    rim, hub = plain(colour, 0.4), plain(shade(colour, 0.55), 0.5)
    big, small = 0.23, 0.15
    rear = [0.36, 0.36 - 2.15 * big] + ([0.36 - 4.3 * big] if boiler > 1.02 else [])
    for radius, ys in ((big, rear), (small, [front + 0.12])):
        for y in ys:
            for side in (-1, 1):
                x = side * 0.34
                turn = (0, 90, 0)
                add(ring(radius - 0.03, 0.045, 16, 6), rim, (x, y, radius), turn)
                add(cylinder(radius - 0.04, 0.05, 0, 16), hub, (x - 0.025, y, radius), turn)
                for k in range(2):
                    spoke = cylinder(0.042, 2 * radius - 0.08, 0, 6)
                    spoke = placed(placed(spoke, (0, 0, 0.04 - radius)), turn=(90 * k + 20, 0, 0))
                    add(spoke, rim, (x, y, radius))
                add(cylinder(0.05, 0.12, 0, 10), plain(BRASS, 0.3), (x - 0.06, y, radius), turn)
    for side in (-1, 1):
        rod = np.array([(side * 0.41, rear[0] + 0.02, big - 0.04), (side * 0.41, rear[-1] - 0.06, big - 0.04)])
        add(tube(rod, 0.03, 8), plain(STEEL, 0.3))
    both(cylinder(0.1, 0.28, 0.03, 16), plain(shade(colour, 0.8)), (0.34, front + 0.4, 0.3), (90, 0, 0))
