# SPDX-License-Identifier: GPL-3.0-or-later
"""Garden objects, their fronts towards -y."""

import numpy as np

from rendering.procedural import patterns
from rendering.procedural.colours import BRASS, CREAM, DARK, Colour, hsv, palette, plain, shade, textured
from rendering.procedural.creatures import PINK, eyes
from rendering.procedural.house import WINDOW, island
from rendering.procedural.scene import add, both
from rendering.procedural.shapes import Rng, Solid, ball, box, cone, curve, cylinder, lathe, prism, ring, tube
from rendering.procedural.vessels import blossom


def mushroom(rng: Rng) -> None:
    """Add a mushroom house to the scene."""
    colours = palette(rng, 3)
    tall, thick, wide, dome = (
        rng.uniform(0.6, 0.85),
        rng.uniform(0.2, 0.27),
        rng.uniform(0.52, 0.66),
        rng.uniform(0.34, 0.5),
    )
    flesh = textured(patterns.mottled(rng, shade(CREAM, 0.97), 0.04, 9), 0.9)
    spotted = [patterns.dots, patterns.stars][rng.integers(2)]
    cap = textured(spotted(colours[0], shade(colours[1], 1.75), 4), 0.5)
    gills = textured(patterns.stripes(shade(colours[0], 1.6), shade(colours[0], 1.2), 12), 0.8)
    stem = curve([(thick * 1.35, 0), (thick, tall * 0.4), (thick * 0.85, tall)], 5)
    add(lathe([(0, 0), *stem, (0, tall + 0.1)], 24), flesh)
    arc = np.radians(np.linspace(0, 90, 9))
    bowl = np.stack([wide * np.cos(arc), tall + dome * np.sin(arc)], axis=1)
    bowl[-1, 0] = 0
    add(lathe([(0, tall + 0.06), (wide * 0.97, tall - 0.03), *bowl], 32), cap, tile=(2, 1.3))
    add(
        lathe(
            [
                (0, tall - 0.02),
                (thick, tall - 0.025),
                (wide * 0.93, tall - 0.06),
                (wide * 0.95, tall),
                (0, tall + 0.05),
            ],
            32,
        ),
        gills,
        tile=(3, 1),
    )
    for k, angle in enumerate(rng.uniform(0, 360, 4)):
        x, y = 0.42 * np.cos(np.radians(angle)), 0.42 * np.sin(np.radians(angle))
        add(ball((0.12, 0.12, 0.07), 10), plain(hsv(0.3 + 0.03 * k, 0.65, 0.55)), (x, y, 0.0))
    island(rng, 0.58, 0.58)
    side = rng.choice([-1, 1])
    _dwelling(rng, side, thick, tall, colours[2])
    small = rng.uniform(0.24, 0.38)
    place = (side * 0.38, -0.2, 0)
    add(cone(0.075, 0.06, small, 0.01, 14), flesh, place)
    hood = curve([(0.18, small - 0.02), (0.14, small + 0.1), (0.0, small + 0.16)], 4)
    add(
        lathe([(0, small), *np.maximum(hood, 0)], 20),
        textured(patterns.dots(colours[1], shade(colours[0], 1.7), 4)),
        place,
    )


def _dwelling(rng: Rng, side: int, thick: float, tall: float, colour: Colour) -> None:
    """Add a door in front and a round window at one side of the stem."""
    door = [(-0.11, 0), (0.11, 0), *curve([(0.11, 0.2), (0, 0.33), (-0.11, 0.2)], 3)]
    add(
        prism(door, 0.12, "y", 0.02),
        textured(patterns.planks(rng, shade(colour, 0.9), 4)),
        (0, -thick * 1.08, 0.0),
        (-7, 0, 0),
    )
    add(ball(0.024, 8), plain(BRASS, 0.3), (0.06, -thick * 1.1 - 0.07, 0.15))
    add(
        cylinder(0.085, 0.05, 0.02, 16),
        plain(WINDOW, 0.3),
        (side * (thick * 0.9 - 0.02), 0, tall * 0.58),
        (0, side * 90, 0),
    )
    add(ring(0.085, 0.022, 16, 6), plain(colour), (side * (thick * 0.9 + 0.02), 0, tall * 0.58), (0, 90, 0))


def cactus(rng: Rng) -> None:
    """Add a potted cactus to the scene."""
    colours = palette(rng, 3)
    green = hsv(rng.uniform(0.26, 0.42), rng.uniform(0.55, 0.72), rng.uniform(0.55, 0.7))
    skin = textured(patterns.stripes(green, shade(green, 1.35), 8, "u", 0.3), 0.7)
    rim, r, tall = rng.uniform(0.34, 0.42), rng.uniform(0.2, 0.26), rng.uniform(0.75, 1.05)
    pot = textured(patterns.cloth(rng, colours), 0.5)
    add(cone(rim * 0.7, rim, 0.42, 0.03, 30), pot, tile=(3, 1))
    add(cone(rim * 1.1, rim * 1.14, 0.12, 0.03, 30), plain(colours[2], 0.5), (0, 0, 0.36))
    add(
        cylinder(rim * 0.98, 0.06, 0.02, 24),
        textured(patterns.mottled(rng, hsv(0.07, 0.6, 0.42), 0.15, 12)),
        (0, 0, 0.435),
    )
    if rng.uniform() < 0.3:
        r, tall = r * 1.7, tall * 0.55
    spine = np.array([(0, 0, 0.4), (0, 0, 0.42 + tall * 0.5), (0, 0, 0.42 + tall)])
    add(_ribbed(tube(spine, [r * 0.88, r, r * 0.9], 32)), skin, tile=(2, 1))
    side = rng.choice([-1, 1])
    top = 0.42 + tall + r
    for k in range(int(rng.integers(1, 4))):
        s, level, out = side * (-1) ** k, 0.5 + tall * rng.uniform(0.25, 0.5), r + rng.uniform(0.2, 0.3)
        y = 0.12 * k
        arm = curve(
            [
                (s * r * 0.6, y, level),
                (s * out, y, level + 0.05),
                (s * (out + 0.02), y, level + rng.uniform(0.26, 0.42)),
            ],
            5,
        )
        add(tube(arm, 0.105, 14), skin)
        blossom(arm[-1] + [0, 0, 0.1], np.array([0, 0, 1.0]), 0.13, colours[k % 2], BRASS)
    blossom(
        np.array([0, 0, top - 0.02]),
        np.array([0, -0.25, 1.0]),
        0.22,
        colours[1],
        BRASS,
        int(rng.integers(5, 9)),
    )
    for z in np.arange(0.58, 0.42 + tall, 0.17):
        for angle in range(0, 360, 45):
            if angle != 270:
                x, y = 0.95 * r * np.cos(np.radians(angle)), 0.95 * r * np.sin(np.radians(angle))
                add(cone(0.022, 0, 0.07, 0, 5), plain(CREAM), (x, y, z), (0, 90, angle))
    face = 0.42 + tall * 0.7
    eyes(r * 0.36, -r * 0.93, face, 0.055)
    both(ball((0.045, 0.03, 0.035), 10), plain(PINK), (r * 0.6, -r * 0.82, face - 0.09))
    smile = curve([(-0.07, -r * 0.98, face - 0.09), (0, -r * 1.02, face - 0.13), (0.07, -r * 0.98, face - 0.09)], 4)
    add(tube(smile, 0.018, 6), plain(DARK))


def _ribbed(solid: Solid) -> Solid:
    """Return an upright `solid` with eight shallow ribs."""
    angles = np.arctan2(solid.points[:, 1], solid.points[:, 0])
    solid.points[:, :2] *= (1 + 0.06 * np.cos(8 * angles))[:, None]
    return solid


def snowman(rng: Rng) -> None:
    """Add a snowman to the scene."""
    colours = palette(rng, 3)
    snow = textured(patterns.mottled(rng, hsv(0.56, rng.uniform(0.14, 0.26), 0.9), 0.025, 9), 0.9)
    low, mid, head = rng.uniform(0.46, 0.54), rng.uniform(0.35, 0.41), rng.uniform(0.28, 0.33)
    z1, z2 = low * 0.85, low * 1.5 + mid * 0.7
    z3 = z2 + mid * 0.78 + head * 0.7
    for radius, z in ((low, z1), (mid, z2), (head, z3)):
        add(ball((radius, radius, radius * 0.95), 26), snow, (0, 0, z), tile=(2, 1))
    eyes_y = -head * 0.9
    both(ball(0.042, 10), plain(DARK, 0.3), (head * 0.36, eyes_y, z3 + head * 0.25))
    add(
        cone(0.062, 0, rng.uniform(0.26, 0.36), 0, 14),
        plain(hsv(0.07, 0.9, 0.97)),
        (0, -head * 0.9, z3 + 0.01),
        (90, 0, 0),
    )
    for k in range(5):
        x = (k - 2) * 0.055
        y = -np.sqrt(head**2 - x**2) * 0.97
        add(ball(0.022, 8), plain(DARK), (x, y * 0.96, z3 - head * 0.42 + 0.5 * x * x / 0.1))
    for dz in (-0.12, 0.02, 0.16):
        add(ball(0.045, 10), plain(colours[1], 0.4), (0, -np.sqrt(mid**2 - dz**2) * 0.99, z2 + dz))
    wool = textured(patterns.stripes(colours[0], shade(colours[1], 1.6), 8), 0.9)
    neck = z2 + mid * 0.84
    add(ring(head * 0.82, 0.075, 26, 10), wool, (0, 0, neck))
    side = rng.choice([-1, 1])
    add(
        box((0.14, 0.07, 0.42), 0.03),
        wool,
        (side * 0.12, -mid * 0.94, neck - 0.16),
        (-10, side * 8, 0),
        tile=(1, 1),
    )
    twig = plain(hsv(0.07, 0.6, 0.42), 0.8)
    for s in (-1, 1):
        hand = np.array([s * (mid + 0.38), -0.1, z2 + rng.uniform(0.05, 0.38)])
        arm = np.array([(s * mid * 0.8, 0, z2 + 0.06), hand])
        add(tube(arm, 0.035, 8), twig)
        for dx, dz in ((0.11, 0.08), (0.02, 0.14), (0.13, -0.03)):
            add(tube([hand, hand + [s * dx, -0.02, dz]], 0.022, 6), twig)
        if s == side:
            add(ball((0.1, 0.1, 0.1), 14), plain(colours[2], 0.8), tuple(hand - [s * 0.02, 0, 0]))
    _hat(rng, colours, z3 + head * 0.72, head)


def _hat(rng: Rng, colours: list[Colour], z: float, head: float) -> None:
    """Add a top hat with a ribbon or a bobble cap."""
    if rng.uniform() < 0.5:
        add(cylinder(head * 1.15, 0.05, 0.02, 26), plain(shade(colours[2], 0.6)), (0, 0.02, z), (-7, 0, 0))
        add(
            cone(head * 0.76, head * 0.82, 0.34, 0.03, 26),
            plain(shade(colours[2], 0.6)),
            (0, 0.02, z + 0.02),
            (-7, 0, 0),
        )
        add(cylinder(head * 0.8, 0.08, 0.01, 26), plain(colours[0]), (0, 0.025, z + 0.06), (-7, 0, 0))
    else:
        knit = textured(patterns.zigzag(colours[2], shade(colours[0], 1.6), 4), 0.9)
        crown = [(head * 0.95, -0.06), (head * 0.9, 0.1), (head * 0.5, 0.27), (0.0, 0.33)]
        add(
            lathe([(0, -0.06), *np.maximum(curve(crown, 4), [0, -1])], 26),
            knit,
            (0, 0.02, z),
            (-7, 0, 0),
            tile=(3, 1),
        )
        add(
            ring(head * 0.93, 0.065, 26, 8),
            plain(shade(colours[0], 1.5), 0.9),
            (0, 0.015, z - 0.03),
            (-7, 0, 0),
        )
        add(ball(0.1, 14), plain(shade(colours[0], 1.5), 0.9), (0, 0.06, z + 0.38))
