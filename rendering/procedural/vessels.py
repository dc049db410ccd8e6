# SPDX-License-Identifier: GPL-3.0-or-later
"""Mug, teapot and vase. Handles and spouts lie along x, the painted side faces -y."""

import numpy as np

from rendering.procedural import patterns
from rendering.procedural.colours import BRASS, LEAF, Colour, hsv, palette, plain, shade, textured
from rendering.procedural.scene import add
from rendering.procedural.shapes import Rng, ball, cone, curve, cylinder, lathe, placed, ring, tube


def blossom(
    centre: np.ndarray, normal: np.ndarray, radius: float, petal: Colour, heart: Colour, petals: int = 6
) -> None:
    """Add a flower of flat petals that faces along `normal`."""
    normal = normal / np.linalg.norm(normal)
    across = np.cross(normal, [0.3, 0.1, 1.0] if abs(normal[2]) < 0.9 else [1.0, 0, 0])
    across /= np.linalg.norm(across)
    frame = np.stack([across, np.cross(normal, across), normal])
    material = plain(petal)
    for k in range(petals):
        leaf = placed(ball((0.5, 0.3, 0.13), 10), (0.6, 0, 0), (0, -12, 0))
        leaf = placed(leaf, turn=(0, 0, 360 * k / petals))
        add(leaf._replace(points=centre + radius * leaf.points @ frame), material)
    add(ball(0.34 * radius, 10), plain(heart), tuple(centre + 0.08 * radius * normal))


def mug(rng: Rng) -> None:
    """Add a mug to the scene."""
    colours = palette(rng, 4)
    radius, height, flare = rng.uniform(0.3, 0.4), rng.uniform(0.62, 0.9), rng.uniform(-0.06, 0.08)
    belly = rng.uniform(-0.03, 0.08)
    outside = [
        (radius - 0.06, 0),
        (radius, 0.06),
        (radius + belly, height / 2),
        (radius + flare, height - 0.02),
    ]
    inside = [
        (radius + flare - 0.03, height),
        (radius + flare - 0.06, height - 0.03),
        (radius - 0.06, 0.1),
        (0, 0.08),
    ]
    tile = (float(rng.integers(2, 4)), 2.0)
    glaze = textured(patterns.cloth(rng, colours), 0.3)
    add(lathe([(0, 0), *curve(outside, 5), *inside], 36), glaze, tile=tile)
    rim = plain(colours[3], 0.3)
    add(ring(radius + flare - 0.03, 0.034, 36, 8), rim, (0, 0, height))
    add(
        cylinder(radius + flare - 0.05, 0.02, 0.005, 30),
        plain(hsv(0.06, 0.75, 0.38), 0.2),
        (0, 0, height * 0.84),
    )
    reach, low, high = radius + rng.uniform(0.2, 0.3), height * 0.22, height * 0.8
    handle = [
        (radius - 0.02, 0, high),
        (reach, 0, high + 0.02),
        (reach + 0.04, 0, (low + high) / 2),
        (reach - 0.06, 0, low),
        (radius - 0.03, 0, low),
    ]
    add(tube(curve(handle, 5), 0.06, 10), rim)
    if rng.uniform() < 0.6:
        add(cone(0.3, radius + 0.34, 0.06, 0.02, 36), glaze, (0, 0, -0.06), tile=tile)
        add(
            cylinder(0.12, 0.05, 0.02, 16),
            textured(patterns.dots(hsv(0.09, 0.6, 0.8), hsv(0.05, 0.7, 0.4), 4)),
            (-0.38, -0.32, 0.01),
            (18, -12, 0),
        )
    heart = np.array([0, -radius - belly - 0.01, height * 0.5])
    blossom(heart, np.array([0, -1.0, 0]), 0.2, shade(colours[2], 1.5), BRASS, int(rng.integers(5, 8)))


def teapot(rng: Rng) -> None:
    """Add a teapot to the scene."""
    colours = palette(rng, 4)
    radius, height = rng.uniform(0.5, 0.6), rng.uniform(0.66, 0.92)
    shoulder = rng.uniform(0.55, 0.8)
    knots = [
        (radius * 0.6, 0),
        (radius * 0.95, height * 0.22),
        (radius, height * 0.45),
        (radius * shoulder, height * 0.86),
        (radius * 0.5, height),
    ]
    glaze = textured(patterns.cloth(rng, colours), 0.3)
    add(lathe([(0, 0), *curve(knots, 5), (0, height)], 36), glaze, tile=(3, 2))
    trim = plain(colours[3], 0.3)
    add(cylinder(radius * 0.66, 0.05, 0.015, 30), trim, (0, 0, -0.03))
    add(ring(radius * 0.52, 0.035, 30, 8), trim, (0, 0, height))
    lid = [(radius * 0.5, 0), (radius * 0.42, 0.07), (radius * 0.2, 0.13), (0, 0.15)]
    add(lathe([(0, -0.01), *curve(lid, 4)], 30), glaze, (0, 0, height + 0.01), tile=(3, 1))
    add(ball(0.075, 14), trim, (0, 0, height + 0.2))
    tip = height * rng.uniform(0.92, 1.08)
    spout = [
        (radius * 0.7, 0, height * 0.28),
        (radius + 0.13, 0, height * 0.4),
        (radius + 0.18, 0, height * 0.68),
        (radius + 0.32, 0, tip),
    ]
    path = curve(spout, 6)
    add(tube(path, np.linspace(0.16, 0.07, len(path)), 14), trim)
    add(ball((0.05, 0.05, 0.03), 10), plain(hsv(0.05, 0.6, 0.3)), (radius + 0.355, 0, tip + 0.055), (0, 35, 0))
    back = -radius
    handle = [
        (back * 0.86, 0, height * 0.8),
        (back - 0.24, 0, height * 0.86),
        (back - 0.32, 0, height * 0.52),
        (back - 0.16, 0, height * 0.24),
        (back * 0.9, 0, height * 0.24),
    ]
    add(tube(curve(handle, 5), 0.058, 10), trim)
    blossom(
        np.array([0, -radius - 0.0, height * 0.45]),
        np.array([0, -1.0, 0.1]),
        0.25,
        shade(colours[1], 1.5),
        BRASS,
        int(rng.integers(5, 9)),
    )


def vase(rng: Rng) -> None:
    """Add a vase with flowers to the scene."""
    colours = palette(rng, 4)
    height, foot, belly, neck = (
        rng.uniform(0.75, 1.0),
        rng.uniform(0.16, 0.24),
        rng.uniform(0.3, 0.42),
        rng.uniform(0.12, 0.18),
    )
    low = rng.uniform(0.3, 0.55)
    knots = [(foot, 0), (belly, height * low), (neck, height * 0.85), (neck + 0.1, height)]
    inside = [(neck + 0.06, height), (neck - 0.03, height * 0.86), (0, height * 0.8)]
    paint = (
        patterns.bands([*colours, shade(colours[0], 1.5), colours[1]])
        if rng.uniform() < 0.3
        else patterns.cloth(rng, colours)
    )
    add(lathe([(0, 0), *curve(knots, 7), *inside], 32), textured(paint, 0.3), tile=(3, 2.5))
    trim = plain(colours[3], 0.3)
    add(ring(foot, 0.03, 24, 8), trim, (0, 0, 0.02))
    for side in (1, -1)[: int(rng.integers(1, 3))]:
        ear = [
            (side * belly * 0.85, 0, height * (low + 0.14)),
            (side * (belly + 0.12), 0, height * 0.72),
            (side * (neck + 0.16), 0, height * 0.9),
            (side * (neck + 0.0), 0, height * 0.88),
        ]
        add(tube(curve(ear, 5), 0.042, 10), trim)
    count = int(rng.integers(4, 6))
    green = plain(LEAF)
    for k in range(count):
        angle = 2 * np.pi * (k + rng.uniform(-0.2, 0.2)) / count
        lean, rise = rng.uniform(0.22, 0.42), rng.uniform(0.3, 0.55)
        out = np.array([np.cos(angle), np.sin(angle), 0])
        top = out * lean + [0, 0, height + rise]
        foot_point, middle = np.array([0, 0, height * 0.8]), out * lean * 0.35 + [0, 0, height + 0.4 * rise]
        add(tube(curve([foot_point, middle, top], 4), 0.022, 6), green)
        blossom(
            top,
            out * 0.7 + [0, 0, 0.7],
            rng.uniform(0.18, 0.25),
            colours[k % 3],
            BRASS,
            int(rng.integers(5, 8)),
        )
        leaf = placed(ball((0.17, 0.07, 0.025), 10), (0.15, 0, 0), (0, -40, 0))
        add(leaf, green, (*(out * 0.08)[:2], height + 0.08), (0, 0, np.degrees(angle) + 30))
