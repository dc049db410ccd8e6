# SPDX-License-Identifier: GPL-3.0-or-later
"""Road vehicles, their noses towards -y."""

import numpy as np

from rendering.procedural import patterns
from rendering.procedural.colours import CREAM, DARK, STEEL, Colour, hsv, palette, plain, shade, textured
from rendering.procedural.scene import add, both
from rendering.procedural.shapes import Rng, ball, box, curve, cylinder, lathe, prism, tube

GLASS: Colour = (0.32, 0.52, 0.68)
RUBBER: Colour = (0.20, 0.20, 0.24)
HEADLIGHT: Colour = (1.0, 0.88, 0.45)
TAILLIGHT: Colour = (0.88, 0.10, 0.10)


def wheels(radius: float, width: float, half: float, ys: list[float], hub: Colour) -> None:
    """Add a pair of wheels on the ground at each y, their outer faces at x = ±`half`."""
    tyre, disc, cap = plain(RUBBER, 0.8), plain(hub, 0.4), plain(shade(hub, 1.5), 0.4)
    for y in ys:
        for side in (-1, 1):
            turn, x = (0, side * 90, 0), side * (half - width)
            add(cylinder(radius, width, 0.03, 22), tyre, (x, y, radius), turn)
            add(cylinder(radius * 0.62, width + 0.025, 0.01, 16), disc, (x, y, radius), turn)
            add(cylinder(radius * 0.22, width + 0.05, 0.01, 10), cap, (x, y, radius), turn)


def car(rng: Rng) -> None:
    """Add a car to the scene."""
    colours = palette(rng, 3)
    length, width, r = rng.uniform(1.75, 2.05), rng.uniform(0.86, 0.98), rng.uniform(0.19, 0.23)
    belt, roof = rng.uniform(0.52, 0.6), rng.uniform(0.88, 1.02)
    half, nose = length / 2, rng.uniform(0.36, 0.48)
    lower = shade(colours[0], 1.55) if rng.uniform() < 0.5 else colours[1]
    coats = [
        patterns.bands([lower, colours[0]]),
        patterns.stripes(colours[0], lower, 8, "u", 0.3),
        patterns.dots(colours[0], lower, 8, 0.3),
        patterns.mottled(rng, colours[0], 0.02),
    ]
    paint = textured(coats[rng.integers(4)], 0.35)
    side = [(-half, 0.2), (half, 0.2), (half, belt - 0.04), (half - 0.1, belt), (-half + nose, belt + 0.02)]
    side += [(-half + 0.12, belt - 0.06), (-half, belt - 0.16)]
    add(prism(side, width, "x", 0.05), paint, tile=(1, 3.2))
    front, back = -half + nose, half - rng.uniform(0.06, 0.4)
    cabin = [(front, belt - 0.02), (back, belt - 0.02), (back - 0.14, roof), (front + 0.26, roof)]
    glass = prism(cabin, width * 0.86, "x", 0.05)
    taper = 1 - 0.3 * (glass.points[:, :1] * 0 + glass.points[:, 2:] - belt)
    add(
        glass._replace(points=glass.points * np.hstack([taper, np.ones_like(glass.points[:, :2])])),
        plain(GLASS, 0.15),
    )
    middle, long = (front + back + 0.12) / 2, back - front - 0.36
    coat = plain(colours[0], 0.35)
    add(box((width * 0.8, long, 0.07), 0.03), coat, (0, middle, roof))
    both(box((0.03, 0.07, roof - belt), 0.012), coat, (width * 0.405, middle, (roof + belt) / 2), (0, -7, 0))
    for y in (-1, 1):
        add(box((width + 0.04, 0.1, 0.1), 0.04), plain(STEEL, 0.3), (0, y * half, 0.24))
    both(ball((0.1, 0.05, 0.1), 14), plain(HEADLIGHT, 0.2), (width * 0.34, -half + 0.01, belt - 0.2))
    add(box((width * 0.36, 0.03, 0.1), 0.012), plain(DARK), (0, -half, belt - 0.22))
    both(box((0.16, 0.04, 0.1), 0.018), plain(TAILLIGHT), (width * 0.36, half, belt - 0.14))
    add(box((0.3, 0.03, 0.09), 0.01), plain(CREAM), (0, half + 0.005, belt - 0.15))
    both(box((0.1, 0.05, 0.07), 0.02), coat, (width / 2 + 0.03, front + 0.16, belt + 0.07))
    both(box((0.02, 0.1, 0.03), 0.008), plain(STEEL, 0.3), (width / 2 + 0.005, middle + 0.1, belt - 0.1))
    wheels(r, 0.15, width / 2 + 0.04, [-half * 0.6, half * 0.6], shade(colours[2], 1.3))
    _roof_load(rng, middle, roof + 0.03, colours)


def _roof_load(rng: Rng, y: float, z: float, colours: list[Colour]) -> None:
    """Add luggage, a taxi sign, a police lamp or nothing."""
    choice = rng.integers(4)
    if choice == 0:
        both(box((0.03, 0.4, 0.03)), plain(STEEL), (0.22, y, z + 0.015))
        add(
            box((0.4, 0.26, 0.15), 0.03),
            textured(patterns.plaid(colours[2], colours[1], CREAM)),
            (0, y + 0.04, z + 0.1),
        )
        add(box((0.22, 0.14, 0.1), 0.03), plain(colours[1]), (0.05, y + 0.05, z + 0.22))
    elif choice == 1:
        add(box((0.34, 0.13, 0.15), 0.04), textured(patterns.checker(HEADLIGHT, DARK, 6)), (0, y, z + 0.07))
    elif choice == 2:
        add(ball((0.08, 0.08, 0.1), 12), plain(TAILLIGHT, 0.2), (-0.13, y, z + 0.03))
        add(ball((0.08, 0.08, 0.1), 12), plain(hsv(0.6), 0.2), (0.13, y, z + 0.03))


def truck(rng: Rng) -> None:
    """Add a truck to the scene."""
    colours = palette(rng, 4)
    width, r, load = rng.uniform(0.84, 0.96), rng.uniform(0.2, 0.25), rng.uniform(1.2, 1.5)
    floor, cab = r + 0.22, rng.uniform(0.72, 0.86)
    half = (load + 0.62) / 2
    y = -half + 0.3
    add(box((width * 0.7, 2 * half, 0.14), 0.03), plain(STEEL, 0.5), (0, 0, floor - 0.08))
    side = [
        (y - 0.3, floor - 0.14),
        (y + 0.28, floor - 0.14),
        (y + 0.28, floor + cab),
        (y - 0.12, floor + cab),
        (y - 0.24, floor + 0.4),
        (y - 0.3, floor + 0.36),
    ]
    add(
        prism(side, width, "x", 0.05),
        textured(patterns.bands([colours[1], colours[0], colours[0]]), 0.35),
        tile=(1, 1.3),
    )
    add(box((width * 0.82, 0.05, 0.32), 0.02), plain(GLASS, 0.15), (0, y - 0.19, floor + 0.59), (-19, 0, 0))
    both(box((0.04, 0.28, 0.27), 0.018), plain(GLASS, 0.15), (width / 2, y + 0.08, floor + 0.56))
    add(box((width * 0.5, 0.05, 0.2), 0.02), plain(STEEL, 0.3), (0, y - 0.3, floor + 0.16))
    both(ball((0.09, 0.05, 0.09), 14), plain(HEADLIGHT, 0.2), (width * 0.37, y - 0.3, floor + 0.12))
    add(box((width + 0.06, 0.1, 0.12), 0.04), plain(STEEL, 0.4), (0, y - 0.31, floor - 0.1))
    both(
        tube([(width / 2 - 0.06, y + 0.32, floor), (width / 2 - 0.06, y + 0.32, floor + cab + 0.16)], 0.035, 8),
        plain(STEEL, 0.3),
    )
    _truck_load(rng, half - load / 2, floor, width, load - 0.06, colours)
    both(box((0.14, 0.05, 0.09), 0.02), plain(TAILLIGHT), (width * 0.34, half, floor - 0.06))
    wheels(r, 0.17, width / 2 + 0.03, [y + 0.02, half - 0.26, half - 0.3 - 2 * r], shade(colours[2], 1.2))


def _truck_load(rng: Rng, y: float, z: float, width: float, length: float, colours: list[Colour]) -> None:
    """Add a box, an open bed with goods, or a tank."""
    choice = rng.integers(3)
    if choice == 0:
        tall = rng.uniform(0.85, 1.05)
        add(
            box((width + 0.06, length, tall), 0.03),
            textured(patterns.cloth(rng, colours[1:])),
            (0, y, z + tall / 2),
            tile=(1.5, 1.5),
        )
        both(
            box((width * 0.44, 0.04, tall * 0.86), 0.015),
            plain(shade(colours[3], 1.3)),
            (width * 0.23, y + length / 2, z + tall / 2),
        )
        add(box((0.05, 0.06, tall * 0.4), 0.015), plain(DARK), (0.06, y + length / 2 + 0.02, z + tall / 2))
    elif choice == 1:
        wood = textured(patterns.planks(rng, hsv(0.08, 0.6, 0.8), 4))
        add(box((width, length, 0.07), 0.02, grain=True), wood, (0, y, z + 0.02))
        both(box((0.06, length, 0.34), 0.02, grain=True), wood, (width / 2 - 0.02, y, z + 0.17), tile=(1, 3))
        for end in (-1, 1):
            add(
                box((width, 0.06, 0.34), 0.02, grain=True),
                wood,
                (0, y + end * (length / 2 - 0.03), z + 0.17),
                tile=(1, 3),
            )
        for k in range(9):
            x, place = (k % 2 - 0.5) * width * 0.46, y + ((k // 2) % 4 - 1.5) * length * 0.22
            goods = hsv(rng.choice([0.07, 0.0, 0.3, 0.14]), 0.85, 0.85)
            add(ball(rng.uniform(0.17, 0.21), 14), plain(goods), (x, place, z + 0.24 + 0.02 * (k % 3)))
    else:
        bands = textured(patterns.stripes(shade(colours[1], 1.5), colours[1], 3, "v", 0.4), 0.3)
        r = width * 0.5
        shell = curve(
            [(0, 0), (r * 0.8, 0.03), (r, 0.14), (r, length - 0.14), (r * 0.8, length - 0.03), (0, length)], 4
        )
        add(lathe(np.maximum(shell, 0), 26), bands, (0, y + length / 2, z + r), (90, 0, 0))
        add(cylinder(0.15, 0.1, around=16), plain(colours[2]), (0, y, z + 2 * r - 0.02))
        add(box((width * 0.8, length * 0.9, 0.16)), plain(STEEL), (0, y, z + 0.05))
