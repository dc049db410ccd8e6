# SPDX-License-Identifier: GPL-3.0-or-later
"""Mammals, their faces towards -y."""

import numpy as np

from rendering.procedural import patterns
from rendering.procedural.colours import (
    BRASS,
    CREAM,
    DARK,
    Colour,
    Material,
    hsv,
    palette,
    plain,
    shade,
    textured,
)
from rendering.procedural.creatures import PINK, eyes
from rendering.procedural.scene import add, both
from rendering.procedural.shapes import Rng, ball, box, cone, curve, cylinder, lathe, prism, ring, tube


def coat(rng: Rng) -> tuple[Colour, Colour]:
    """Return a main and a second fur colour: natural browns and greys, or sometimes a bright one."""
    if rng.uniform() < 0.3:
        hue = rng.uniform()
        return hsv(hue, 0.6, 0.85), shade(hsv(hue + 0.1, 0.6, 0.9), 1.6)
    hue = rng.uniform(0.04, 0.12)
    light, dark = (
        hsv(hue, rng.uniform(0.3, 0.75), rng.uniform(0.75, 0.95)),
        hsv(hue, 0.7, rng.uniform(0.35, 0.5)),
    )
    return (light, dark) if rng.uniform() < 0.6 else (shade(dark, 1.2), CREAM)


def dog(rng: Rng) -> None:
    """Add a dog to the scene."""
    main, second = coat(rng)
    image = [
        patterns.patches(rng, main, second, rng.uniform(0.3, 0.5), 2),
        patterns.dots(main, second, 4, 0.3),
        patterns.mottled(rng, main, 0.05, 8),
    ][rng.integers(3)]
    fur, solid, dark = textured(image, 0.85), plain(main, 0.85), plain(second, 0.85)
    long, leg, fat = rng.uniform(0.24, 0.42), rng.uniform(0.24, 0.36), rng.uniform(0.23, 0.28)
    z = leg + fat * 0.75
    spine = curve([(0, -long, 0.05), (0, 0, 0), (0, long, 0.02)], 5)
    add(
        tube(
            spine,
            fat * np.interp(np.linspace(0, 1, len(spine)), [0, 0.3, 0.7, 1], [0.95, 1.05, 0.9, 0.85]),
            20,
        ),
        fur,
        (0, 0, z),
    )
    for y, coat_of_leg in ((-long + 0.02, solid), (long, solid)):
        both(
            tube([(0, 0, z), (0, 0, leg * 0.5), (0, -0.01, 0.07)], [0.1, 0.085, 0.08], 12),
            coat_of_leg,
            (fat * 0.62, y, 0),
        )
        both(ball((0.09, 0.12, 0.07), 12), dark, (fat * 0.62, y - 0.05, 0.05))
    y, top = -long - 0.16, z + rng.uniform(0.24, 0.34)
    add(tube([(0, -long + 0.06, z + 0.05), (0, y + 0.08, top)], [fat * 0.8, 0.15], 14), solid)
    add(ball((0.23, 0.22, 0.21), 20), fur, (0, y, top + 0.06))
    snout = rng.uniform(0.14, 0.24)
    add(
        tube([(0, y - 0.12, top), (0, y - 0.14 - snout, top - 0.02)], [0.13, 0.095], 14, 1.1),
        plain(shade(main, 1.5), 0.85),
    )
    add(ball((0.065, 0.05, 0.05), 12), plain(DARK, 0.3), (0, y - 0.24 - snout, top + 0.045))
    if rng.uniform() < 0.6:
        add(
            box((0.08, 0.13, 0.025), 0.011),
            plain((0.92, 0.35, 0.42), 0.4),
            (0, y - 0.2 - snout, top - 0.1),
            (30, 0, 0),
        )
    eyes(0.1, y - 0.165, top + 0.13, 0.052)
    if rng.uniform() < 0.6:
        both(ball((0.055, 0.12, 0.2), 14), dark, (0.235, y + 0.02, top + 0.0), (0, -14, 0))
    else:
        both(cone(0.1, 0.0, 0.24, 0.0, 12), dark, (0.13, y + 0.05, top + 0.2), (0, 16, 0))
    trim = palette(rng, 1)[0]
    add(ring(0.17, 0.04, 20, 8), plain(trim), (0, y + 0.115, top - 0.13), (28, 0, 0))
    add(cylinder(0.055, 0.03, 0.01, 12), plain(BRASS, 0.3), (0, y - 0.04, top - 0.2), (90, 0, 0))
    tail = curve(
        [(0, long + 0.1, z + 0.1), (0, long + 0.26, z + 0.22), (0, long + rng.uniform(0.16, 0.34), z + 0.46)],
        5,
    )
    add(tube(tail, np.linspace(0.075, 0.04, len(tail)), 10), dark)


def cat(rng: Rng) -> None:
    """Add a cat to the scene."""
    main, second = coat(rng)
    image = [
        lambda: patterns.stripes(main, second, 6, "v", 0.38),
        lambda: patterns.patches(rng, main, second, 0.4, 2),
        lambda: patterns.patches(rng, main, second, 0.25, 6),
    ][rng.integers(3)]()
    fur, solid, pale = textured(image, 0.85), plain(main, 0.85), plain(shade(main, 1.65), 0.85)
    tall, wide = rng.uniform(0.62, 0.8), rng.uniform(0.27, 0.34)
    knots = [(wide * 0.9, 0.02), (wide, tall * 0.25), (wide * 0.72, tall * 0.65), (wide * 0.45, tall)]
    body = lathe([(0, 0), *curve(knots, 4), (0, tall)], 24)
    body.points[:, 1] = body.points[:, 1] * 1.15 - 0.12 * body.points[:, 2]
    add(body, fur)
    top, y = tall + 0.14, -0.12 * tall - 0.04
    add(ball((0.29, 0.24, 0.235), 24), fur, (0, y, top))
    add(ball((wide * 0.55, 0.12, tall * 0.32), 16), pale, (0, -wide * 0.98, tall * 0.5), (-10, 0, 0))
    _cat_face(y, top, solid, pale, hsv(rng.choice([0.14, 0.3, 0.55]), 0.75, 0.85))
    both(tube([(0.11, -wide * 0.75, tall * 0.5), (0.11, -wide - 0.08, 0.07)], [0.1, 0.075], 12), solid)
    both(ball((0.09, 0.12, 0.065), 12), pale, (0.11, -wide - 0.12, 0.06))
    both(ball((0.13, 0.24, 0.17), 14), fur, (wide * 0.8, -0.02, 0.15))
    both(ball((0.085, 0.13, 0.065), 12), pale, (wide * 0.9, -0.24, 0.06))
    side = rng.choice([-1, 1])
    tail = curve(
        [
            (0, wide * 0.8, 0.08),
            (side * 0.2, wide + 0.22, 0.1),
            (side * 0.36, wide + 0.16, 0.32),
            (side * 0.28, wide + 0.1, rng.uniform(0.5, 0.75)),
        ],
        5,
    )
    add(tube(tail, 0.068, 12), textured(patterns.stripes(main, second, 6, "v", 0.4), 0.85))
    trim = palette(rng, 1)[0]
    add(ring(wide * 0.46 + 0.03, 0.04, 22, 8), plain(trim), (0, y + 0.02, tall - 0.06), (8, 0, 0))
    add(ball(0.055, 12), plain(BRASS, 0.3), (0, y - wide * 0.46 - 0.05, tall - 0.09))


def _cat_face(y: float, top: float, fur: Material, pale: Material, iris: Colour) -> None:
    """Add ears, muzzle, eyes and whiskers on the head centred at (0, y, top)."""
    both(
        prism([(-0.12, 0), (0.12, 0), (0.03, 0.25)], 0.1, "y", 0.03),
        fur,
        (0.16, y + 0.03, top + 0.13),
        (0, 14, 0),
    )
    both(
        prism([(-0.07, 0), (0.07, 0), (0.02, 0.15)], 0.05, "y", 0.015),
        plain(PINK),
        (0.165, y - 0.02, top + 0.16),
        (0, 14, 0),
    )
    both(ball((0.085, 0.07, 0.065), 12), pale, (0.065, y - 0.21, top - 0.075))
    add(ball((0.038, 0.03, 0.028), 10), plain(PINK, 0.4), (0, y - 0.265, top - 0.02))
    eyes(0.115, y - 0.175, top + 0.055, 0.066, iris)
    for tilt in (-10, 8):
        both(
            tube([(0.1, y - 0.22, top - 0.07), (0.36, y - 0.2, top - 0.07 + tilt * 0.004)], 0.009, 5),
            plain(DARK),
        )


def elephant(rng: Rng) -> None:
    """Add an elephant to the scene."""
    colours = palette(rng, 3)
    hue = rng.uniform(0.5, 1.0)
    skin_colour = hsv(hue, rng.uniform(0.22, 0.45), rng.uniform(0.66, 0.82))
    skin = textured(patterns.mottled(rng, skin_colour, 0.05, 9), 0.85)
    hide, pink = plain(skin_colour, 0.85), plain(PINK, 0.8)
    long, fat, leg = rng.uniform(0.42, 0.54), rng.uniform(0.36, 0.42), rng.uniform(0.3, 0.42)
    z = leg + fat * 0.72
    add(ball((fat, long, fat * 0.95), 26), skin, (0, 0.05, z), tile=(2, 2))
    for y in (-long * 0.5, long * 0.56):
        both(cone(0.15, 0.14, z * 0.95, 0.03, 18), hide, (fat * 0.58, y, 0))
        for x in (-0.07, 0.0, 0.07):
            both(ball((0.032, 0.03, 0.04), 8), plain(CREAM), (fat * 0.58 + x, y - 0.145 + abs(x) * 0.4, 0.05))
    y, top = -long - 0.12, z + 0.22
    add(ball((0.28, 0.27, 0.29), 24), skin, (0, y, top))
    ear, angle = rng.uniform(0.24, 0.32), rng.uniform(18, 45)
    both(ball((ear, 0.05, ear * 1.15), 20), hide, (0.24 + ear * 0.66, y + 0.12, top + 0.04), (0, -8, angle))
    both(
        ball((ear * 0.72, 0.03, ear * 0.85), 16),
        pink,
        (0.24 + ear * 0.66, y + 0.08, top + 0.03),
        (0, -8, angle),
    )
    tip = [(0.0, y - 0.56, top + 0.12), (0.0, y - 0.42, top - 0.62), (0.14, y - 0.58, top - 0.3)][rng.integers(3)]
    trunk = curve([(0, y - 0.16, top - 0.04), (0, y - 0.33, top - 0.22), (0, y - 0.42, top - 0.44), tip], 6)
    trunk = (
        trunk
        if tip[2] < top - 0.5
        else curve([(0, y - 0.16, top - 0.04), (0, y - 0.34, top - 0.24), (0, y - 0.52, top - 0.26), tip], 6)
    )
    bands = textured(patterns.stripes(skin_colour, shade(skin_colour, 0.8), 9, "v", 0.3), 0.85)
    add(tube(trunk, np.linspace(0.135, 0.07, len(trunk)), 14), bands)
    both(
        tube(
            curve([(0.14, y - 0.2, top - 0.14), (0.17, y - 0.36, top - 0.24), (0.16, y - 0.46, top - 0.18)], 4),
            np.linspace(0.05, 0.02, 9),
            8,
        ),
        plain(CREAM, 0.4),
    )
    eyes(0.16, y - 0.2, top + 0.1, 0.05)
    tail = curve([(0, long + 0.02, z + 0.1), (0, long + 0.16, z), (0, long + 0.15, z - 0.22)], 4)
    add(tube(tail, 0.03, 8), hide)
    add(ball((0.05, 0.05, 0.08), 10), plain(shade(skin_colour, 0.5)), (0, long + 0.15, z - 0.26))
    _saddle(rng, colours, z, fat, long)


def _saddle(rng: Rng, colours: list[Colour], z: float, fat: float, long: float) -> None:
    """Add a blanket wrapped over the back, and on top a basket or a ball."""
    angles = np.linspace(-0.2, np.pi + 0.2, 15)
    arc = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    strip = np.concatenate([arc * (fat * 1.06, fat * 1.01), arc[::-1] * (fat * 0.9, fat * 0.85)])
    blanket = textured(patterns.cloth(rng, colours), 0.8)
    add(prism(strip, long * 0.8, "y", 0.015), blanket, (0, 0.08, z), tile=(2, 2))
    if rng.uniform() < 0.5:
        add(
            cone(0.17, 0.21, 0.2, 0.02, 20),
            textured(patterns.checker(hsv(0.09, 0.6, 0.85), hsv(0.07, 0.7, 0.6), 8)),
            (0, 0.08, z + fat * 0.92),
            tile=(2, 1),
        )
        add(ball((0.17, 0.17, 0.08), 12), plain(colours[2]), (0, 0.08, z + fat * 0.92 + 0.2))
    else:
        add(
            ball(0.17, 20),
            textured(patterns.stripes(colours[1], shade(colours[2], 1.6), 3)),
            (0, 0.08, z + fat * 0.95 + 0.14),
            tile=(2, 1),
        )
