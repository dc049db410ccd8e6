# SPDX-License-Identifier: GPL-3.0-or-later
"""Fish, bird and insect, their faces towards -y."""

import numpy as np

from rendering.procedural import patterns
from rendering.procedural.colours import DARK, Colour, hsv, palette, plain, shade, textured
from rendering.procedural.scene import add, both
from rendering.procedural.shapes import Rng, ball, box, curve, cylinder, lathe, placed, prism, ring, tube

PINK: Colour = (0.95, 0.55, 0.60)


def eyes(x: float, y: float, z: float, radius: float, iris: Colour | None = None) -> None:
    """Add two eyes looking towards -y and a little outwards: white, iris, pupil and a glint."""
    both(ball(radius, 12), plain((0.97, 0.96, 0.92), 0.3), (x, y, z))
    if iris:
        both(ball(radius * 0.78, 12), plain(iris, 0.3), (x + 0.1 * radius, y - 0.42 * radius, z))
    both(ball(radius * 0.55, 10), plain(DARK, 0.2), (x + 0.14 * radius, y - 0.72 * radius, z))
    both(
        ball(radius * 0.2, 8),
        plain((1.0, 1.0, 1.0), 0.2),
        (x + 0.32 * radius, y - 1.15 * radius, z + 0.28 * radius),
    )


def fish(rng: Rng) -> None:
    """Add a fish to the scene."""
    colours = palette(rng, 3)
    long, tall, wide = rng.uniform(0.5, 0.66), rng.uniform(0.3, 0.46), rng.uniform(0.2, 0.28)
    image = [
        patterns.scales(shade(colours[0], 0.7), shade(colours[0], 1.25), 8),
        patterns.stripes(colours[0], shade(colours[1], 1.4), 4, "v", 0.45),
        patterns.dots(colours[0], shade(colours[1], 1.4), 6, 0.3),
    ][rng.integers(3)]
    knots = [(0.0, -1.0), (0.5, -0.85), (0.95, -0.35), (0.9, 0.15), (0.42, 0.75), (0.2, 1.0), (0.0, 1.02)]
    profile = np.maximum(curve(knots, 4), [0, -2])
    body = placed(lathe(profile, 28), turn=(-90, 0, 0))
    add(body._replace(points=body.points * (wide, long, tall)), textured(image, 0.35), tile=(2, 1.5))
    fin = textured(patterns.stripes(colours[2], shade(colours[2], 1.5), 7, "v", 0.4), 0.5)
    fork = rng.uniform(0.0, 0.14)
    tail = [
        (long * 0.85, 0.06),
        (long + 0.36, tall * 0.95),
        (long + 0.32 - fork, 0),
        (long + 0.36, -tall * 0.95),
        (long * 0.85, -0.06),
    ]
    add(prism(curve(tail, 3, closed=True), 0.075, "x", 0.03), fin)
    crest = [
        (-0.4 * long, tall * 0.75),
        (-0.1 * long, tall + rng.uniform(0.2, 0.34)),
        (0.45 * long, tall + 0.06),
        (0.6 * long, tall * 0.3),
    ]
    add(prism(curve(crest, 3, closed=True), 0.07, "x", 0.025), fin)
    belly = [(0, -tall * 0.8), (0.3 * long, -tall - 0.16), (0.42 * long, -tall * 0.5)]
    add(prism(curve(belly, 3, closed=True), 0.07, "x", 0.025), fin)
    paddle = prism(
        curve([(0, 0.04), (0.26, 0.12), (0.32, -0.06), (0.2, -0.16), (0, -0.06)], 3, closed=True),
        0.05,
        "x",
        0.02,
    )
    both(paddle, fin, (wide * 0.92, -0.2 * long, -0.06), (0, 0, -38))
    both(ball((0.05, 0.1, 0.1), 16), plain((0.97, 0.95, 0.9), 0.3), (wide * 0.74, -0.58 * long, tall * 0.22))
    both(ball((0.04, 0.06, 0.06), 12), plain(DARK, 0.2), (wide * 0.74 + 0.03, -0.61 * long, tall * 0.23))
    both(ball(0.02, 8), plain((1.0, 1.0, 1.0)), (wide * 0.74 + 0.06, -0.64 * long, tall * 0.28))
    add(
        ring(0.065, 0.035, 16, 8),
        plain(shade(colours[1], 1.1), 0.4),
        (0, -long * 0.97, -0.05),
        (90, 0, 0),
        (1.1, 1, 1.1),
    )


def duck(rng: Rng) -> None:
    """Add a duck to the scene."""
    main = hsv(rng.choice([0.14, 0.13, 0.06, 0.55, 0.93]) + rng.uniform(-0.02, 0.02), rng.uniform(0.6, 0.82), 0.95)
    accent = palette(rng, 1)[0]
    plumage = textured(patterns.scales(shade(main, 0.9), main, 8), 0.8)
    wing = textured(patterns.scales(shade(accent, 0.75), shade(accent, 1.25), 6), 0.8)
    orange = plain(hsv(0.07, 0.9, 0.98), 0.5)
    long, fat, neck = rng.uniform(0.46, 0.58), rng.uniform(0.34, 0.4), rng.uniform(0.1, 0.34)
    spine = curve([(0, -long * 0.55, 0.42), (0, 0, 0.36), (0, long * 0.6, 0.46), (0, long * 1.15, 0.68)], 5)
    shape = np.interp(np.linspace(0, 1, len(spine)), [0, 0.12, 0.4, 0.7, 1], [0.72, 0.9, 1.0, 0.72, 0.12])
    add(tube(spine, fat * shape, 22, 1.02), plumage, tile=(2, 2))
    y, top = -long * 0.62, 0.74 + neck
    add(tube([(0, -long * 0.5, 0.5), (0, y, top)], [0.24, 0.17], 16), plain(main, 0.8))
    add(ball((0.25, 0.26, 0.24), 22), plain(main, 0.8), (0, y, top + 0.06))
    for z, tilt, length in ((0.02, 6, 0.17), (-0.05, -6, 0.14)):
        add(ball((0.13, length, 0.04), 14), orange, (0, y - 0.3, top + z), (tilt, 0, 0))
    eyes(0.12, y - 0.17, top + 0.13, 0.055)
    both(ball((0.09, 0.3, 0.2), 18), wing, (fat * 0.94, 0.1, 0.46), (18, 0, 8), tile=(1, 1))
    both(cylinder(0.035, 0.14, 0.01, 10), orange, (0.14, 0.02, 0.0))
    foot = [
        (-0.03, 0.1),
        (0.03, 0.1),
        (0.14, -0.16),
        (0.05, -0.13),
        (0, -0.19),
        (-0.05, -0.13),
        (-0.14, -0.16),
    ]
    both(prism(foot, 0.05, bevel=0.02), orange, (0.15, -0.02, 0.0), (0, 0, 10))
    trim = textured(patterns.stripes(accent, shade(accent, 1.65), 8), 0.8)
    style = rng.integers(3)
    if style == 0:
        add(ring(0.19, 0.055, 24, 8), trim, (0, y + 0.01, top - 0.15))
        add(box((0.1, 0.05, 0.28), 0.02), trim, (0.08, y - 0.24, top - 0.28), (-8, 10, 0))
    elif style == 1:
        add(cylinder(0.16, 0.1, 0.03, 20), plain(accent), (0, y + 0.04, top + 0.25), (-10, 0, 0))
        add(cylinder(0.25, 0.035, 0.015, 22), trim, (0, y + 0.03, top + 0.24), (-10, 0, 0))
    else:
        add(ball((0.05, 0.07, 0.12), 10), plain(accent), (0, y + 0.06, top + 0.34), (-25, 0, 0))
        add(ball((0.05, 0.06, 0.1), 10), plain(accent), (0, y + 0.14, top + 0.29), (-55, 0, 0))


def caterpillar(rng: Rng) -> None:
    """Add a caterpillar to the scene."""
    colours = palette(rng, 3)
    count, r, wave = int(rng.integers(4, 7)), 0.25, rng.uniform(0.1, 0.26)
    skins = [
        textured(patterns.dots(colours[0], shade(colours[1], 1.5), 4), 0.6),
        textured(patterns.stripes(colours[1], shade(colours[0], 1.4), 4), 0.6),
    ]
    shoe, bend = plain(colours[2], 0.5), rng.uniform(-0.35, 0.35)
    for k in range(count):
        hump = wave * max(0.0, np.sin(np.pi * k / (count - 1) * 2 - 0.5))
        size = r * (1 - 0.05 * max(0, k - count + 3))
        x, y = bend * np.sin(1.1 * k), 0.3 * (k - (count - 1) / 2)
        add(ball(size, 20), skins[k % 2], (x, y, r + 0.06 + hump), tile=(2, 1))
        for side in (-1, 1):
            add(
                tube([(x + side * 0.12, y, r * 0.6 + hump), (x + side * 0.17, y, 0.04 + hump * 0.85)], 0.045, 8),
                shoe,
            )
            add(ball((0.07, 0.09, 0.05), 10), shoe, (x + side * 0.17, y - 0.03, 0.03 + hump * 0.85))
    y, z = -0.3 * (count - 1) / 2 - 0.28, r + 0.28
    face = plain(shade(colours[2], 1.25), 0.6)
    add(ball((0.29, 0.27, 0.28), 24), face, (0, y, z))
    eyes(0.115, y - 0.2, z + 0.07, 0.085)
    add(ball(0.05, 12), plain(colours[0], 0.4), (0, y - 0.28, z - 0.02))
    both(ball((0.05, 0.03, 0.04), 10), plain(PINK), (0.17, y - 0.2, z - 0.08))
    smile = curve([(-0.1, y - 0.235, z - 0.1), (0, y - 0.25, z - 0.145), (0.1, y - 0.235, z - 0.1)], 4)
    add(tube(smile, 0.02, 6), plain(hsv(0.98, 0.7, 0.5)))
    stalk = curve([(0.1, y, z + 0.22), (0.15, y - 0.03, z + 0.38), (0.24, y - 0.06, z + 0.48)], 4)
    both(tube(stalk, 0.024, 6), plain(DARK))
    both(ball(0.06, 12), plain(colours[0]), (0.24, y - 0.06, z + 0.5))
    if rng.uniform() < 0.5:
        add(cylinder(0.2, 0.03, 0.01, 20), plain(DARK, 0.5), (0, y + 0.03, z + 0.25), (-8, 0, 0))
        add(cylinder(0.13, 0.2, 0.02, 20), plain(colours[1], 0.5), (0, y + 0.03, z + 0.26), (-8, 0, 0))
