# SPDX-License-Identifier: GPL-3.0-or-later
"""Robot, guitar and birthday cake, their fronts towards -y."""

import numpy as np

from rendering.procedural import patterns
from rendering.procedural.colours import (
    BRASS,
    CREAM,
    DARK,
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
from rendering.procedural.shapes import Rng, Solid, ball, box, cone, curve, cylinder, lathe, prism, ring, tube


def robot(rng: Rng) -> None:
    """Add a robot to the scene."""
    colours = palette(rng, 4)
    width, tall, deep, leg = (
        rng.uniform(0.56, 0.72),
        rng.uniform(0.5, 0.68),
        rng.uniform(0.36, 0.46),
        rng.uniform(0.2, 0.34),
    )
    sheet = [
        patterns.bands([colours[0], colours[0], shade(colours[0], 1.45), colours[0]]),
        patterns.checker(colours[0], shade(colours[0], 1.35), 6),
        patterns.stripes(colours[0], shade(colours[1], 1.4), 5, "v", 0.3),
    ][rng.integers(3)]
    metal, trim, steel = textured(sheet, 0.4), plain(colours[1], 0.4), plain(STEEL, 0.4)
    z = 0.12 + leg + tall / 2
    add(box((width, deep, tall), 0.07), metal, (0, 0, z))
    both(cylinder(0.085, leg + 0.08, 0.01, 16), steel, (width * 0.25, 0, 0.08))
    both(box((0.21, 0.32, 0.14), 0.05), trim, (width * 0.26, -0.05, 0.07))
    head, top = rng.uniform(0.34, 0.42), z + tall / 2
    add(cylinder(0.1, 0.12, 0.01, 16), steel, (0, 0, top - 0.02))
    middle = top + 0.07 + head * 0.42
    if rng.uniform() < 0.5:
        add(box((head * 1.35, head, head * 0.84), 0.07), trim, (0, 0, middle))
        face = -head / 2
    else:
        dome = [(0, -0.42), (0.62, -0.42), (0.66, -0.36), *curve([(0.66, 0.0), (0.5, 0.34), (0.0, 0.48)], 4)]
        add(lathe(np.maximum(np.array(dome), [0, -1]) * head, 26), trim, (0, 0, middle))
        face = -head * 0.6
    both(ring(0.085, 0.025, 18, 6), steel, (0.13, face, middle + 0.03), (90, 0, 0))
    both(ball((0.08, 0.045, 0.08), 14), plain((1.0, 0.93, 0.5), 0.2), (0.13, face, middle + 0.03))
    both(ball(0.035, 10), plain(DARK, 0.2), (0.13, face - 0.035, middle + 0.03))
    add(
        box((0.26, 0.05, 0.055), 0.02),
        textured(patterns.stripes(CREAM, DARK, 7, "u", 0.3)),
        (0, face - 0.005, middle - 0.11),
    )
    both(cylinder(0.07, 0.07, 0.02, 14), steel, (head * 0.64, 0, middle), (0, 90, 0))
    add(tube([(0, 0, middle + 0.1), (0, 0, middle + head * 0.45 + 0.16)], 0.02, 8), steel)
    add(ball(0.06, 14), plain((0.95, 0.2, 0.15), 0.3), (0, 0, middle + head * 0.45 + 0.2))
    _panel(rng, colours, -deep / 2, z, width, tall)
    _arms(rng, colours, width / 2, z + tall * 0.28)
    add(box((width * 0.62, 0.18, tall * 0.62), 0.04), plain(colours[2], 0.4), (0, deep / 2 + 0.07, z))
    both(cone(0.085, 0.06, 0.14, 0.01, 14), steel, (width * 0.17, deep / 2 + 0.08, z - tall * 0.31 - 0.13))
    add(ring(0.09, 0.035, 16, 8), plain(BRASS, 0.3), (0, deep / 2 + 0.24, z + 0.04), (0, 90, 0))
    add(cylinder(0.03, 0.12, 0.01, 10), plain(BRASS, 0.3), (0, deep / 2 + 0.2, z + 0.04), (90, 0, 0))


def _panel(rng: Rng, colours: list[Colour], y: float, z: float, width: float, tall: float) -> None:
    """Add dial, lamps and a grille on the chest."""
    add(
        box((width * 0.74, 0.05, tall * 0.62), 0.02),
        plain(shade(colours[3], 1.3), 0.4),
        (0, y - 0.01, z + 0.02),
    )
    add(cylinder(0.095, 0.05, 0.012, 20), plain(CREAM), (-width * 0.16, y - 0.02, z + tall * 0.13), (90, 0, 0))
    add(
        box((0.02, 0.03, 0.09), 0.008),
        plain((0.9, 0.15, 0.1)),
        (-width * 0.16, y - 0.07, z + tall * 0.16),
        (0, rng.uniform(-60, 60), 0),
    )
    for k, hue in enumerate((0.0, 0.14, 0.36)):
        add(
            ball(0.04, 10),
            plain(hsv(hue, 0.85, 0.95), 0.3),
            (width * 0.2, y - 0.03, z + tall * (0.22 - 0.13 * k)),
        )
    add(
        box((width * 0.36, 0.04, 0.1), 0.012),
        textured(patterns.stripes(STEEL, DARK, 6)),
        (-width * 0.14, y - 0.03, z - tall * 0.16),
    )


def _arms(rng: Rng, colours: list[Colour], shoulder: float, z: float) -> None:
    """Add two arms with claws, each raised or lowered."""
    steel, claw = plain(STEEL, 0.4), plain(colours[1], 0.4)
    hose = textured(patterns.stripes(STEEL, shade(STEEL, 0.6), 9, "v", 0.5), 0.4)
    for side in (-1, 1):
        lift = rng.uniform(-0.42, 0.4)
        add(ball(0.11, 14), claw, (side * shoulder, 0, z))
        elbow = (side * (shoulder + 0.24), 0.0, z + 0.35 * lift - 0.06)
        hand = np.array([side * (shoulder + 0.3), -0.2, z + lift])
        add(tube(curve([(side * shoulder, 0, z), elbow, tuple(hand)], 5), 0.055, 10), hose)
        add(ball(0.085, 12), steel, tuple(hand))
        for tilt in (-0.09, 0.09):
            grip = curve(
                [
                    hand,
                    hand + [side * 0.03 + tilt, -0.1, tilt],
                    hand + [side * 0.01 + 0.5 * tilt, -0.2, 0.4 * tilt],
                ],
                3,
            )
            add(tube(grip, 0.032, 8), claw)


def guitar(rng: Rng) -> None:
    """Add a guitar on a stand to the scene."""
    colours = palette(rng, 3)
    upper, waist, lower = rng.uniform(0.31, 0.38), rng.uniform(0.22, 0.27), rng.uniform(0.42, 0.5)
    thick, neck = rng.uniform(0.22, 0.28), rng.uniform(0.4, 0.54)
    right = [(0.1, -0.42), (lower, -0.22), (lower * 0.93, 0.02), (waist, 0.22), (upper, 0.43), (0.12, 0.56)]
    outline = curve(right + [(-x, z) for x, z in right[::-1]], 4, closed=True)
    natural = hsv(rng.uniform(0.05, 0.1), 0.7, rng.uniform(0.7, 0.92))
    face = natural if rng.uniform() < 0.4 else colours[0]
    back = textured(patterns.wood(rng, shade(colours[1], 0.8), 4), 0.35)
    add(prism(outline, thick, "y", 0.03), back)
    add(
        prism(outline * 0.96, 0.06, "y", 0.015),
        textured(patterns.wood(rng, face, 6), 0.3),
        (0, -thick / 2 + 0.012, 0.003),
    )
    front = -thick / 2 - 0.02
    add(ring(0.125, 0.022, 24, 6), plain(CREAM), (0, front, 0.16), (90, 0, 0))
    add(cylinder(0.115, 0.02, 0.004, 24), plain(DARK), (0, front, 0.16), (90, 0, 0))
    guard = curve([(0.08, 0.06), (0.24, 0.06), (0.25, -0.1), (0.12, -0.12)], 3, closed=True)
    add(prism(guard, 0.025, "y", 0.008), plain(colours[2], 0.3), (0, front + 0.005, 0))
    add(box((0.3, 0.05, 0.07), 0.02), plain(hsv(0.06, 0.7, 0.4)), (0, front, -0.18))
    dark = textured(patterns.stripes(hsv(0.06, 0.6, 0.42), CREAM, 9, "u", 0.14), 0.4)
    add(box((0.115, 0.09, neck + 0.3), 0.025, grain=True), dark, (0, front + 0.03, 0.36 + neck / 2))
    top = 0.5 + neck
    peg_head = [(-0.06, 0), (0.06, 0), (0.11, 0.07), (0.1, 0.3), (0, 0.26), (-0.1, 0.3), (-0.11, 0.07)]
    add(prism(peg_head, 0.07, "y", 0.015), plain(colours[1], 0.35), (0, front + 0.045, top - 0.01), (-8, 0, 0))
    for k in range(3):
        both(
            cylinder(0.018, 0.1, 0.005, 8),
            plain(BRASS, 0.3),
            (0.09, front + 0.05 + 0.012 * k, top + 0.08 + 0.075 * k),
            (0, 90, 0),
        )
        both(
            ball((0.035, 0.02, 0.028), 10),
            plain(CREAM, 0.3),
            (0.2, front + 0.05 + 0.012 * k, top + 0.08 + 0.075 * k),
        )
    for x in (-0.036, -0.012, 0.012, 0.036):
        add(
            tube([(x * 1.4, front - 0.03, -0.18), (x, front - 0.025, top)], 0.007, 4),
            plain(shade(STEEL, 1.5), 0.3),
        )
    _stand(thick, plain((0.36, 0.38, 0.44), 0.5))


def _stand(thick: float, metal: Material) -> None:
    """Add a cradle under the body with a leg behind, so that the guitar stands."""
    both(
        tube(curve([(0.03, thick / 2 + 0.04, -0.2), (0.2, 0.06, -0.5), (0.27, -0.2, -0.66)], 4), 0.03, 8),
        metal,
    )
    both(
        tube(
            [
                (0.17, thick / 2 + 0.02, -0.46),
                (0.17, -thick / 2 - 0.08, -0.46),
                (0.17, -thick / 2 - 0.09, -0.37),
            ],
            0.028,
            8,
        ),
        metal,
    )
    add(
        tube(curve([(0, thick / 2 + 0.04, 0.1), (0, thick / 2 + 0.1, -0.2), (0, 0.5, -0.66)], 4), 0.032, 8),
        metal,
    )


def sector(radius: float, missing: float, steps: int = 30) -> np.ndarray:
    """Return the outline of a disc without a slice of `missing` degrees towards -y and a little to the right."""
    start = np.radians(-60 + missing / 2)
    arc = np.linspace(start, start + np.radians(360 - missing), steps)
    return np.concatenate([[(0.0, 0.0)], radius * np.stack([np.cos(arc), np.sin(arc)], axis=1)])


def cake(rng: Rng) -> None:
    """Add a birthday cake to the scene."""
    colours = palette(rng, 3)
    radius, missing, tiers = rng.uniform(0.46, 0.54), rng.uniform(38, 62), int(rng.integers(1, 3))
    icing, drip = shade(colours[0], 1.35), plain(shade(colours[1], 1.2), 0.35)
    coat = [
        patterns.dots(icing, shade(colours[1], 1.2), 6, 0.25),
        patterns.zigzag(icing, shade(colours[2], 1.4), 4),
        patterns.stripes(icing, shade(icing, 1.5), 8, "u"),
    ][rng.integers(3)]
    china = textured(patterns.stripes(shade(colours[2], 1.55), colours[2], 4, "v", 0.4), 0.3)
    add(cone(0.3, radius + 0.2, 0.09, 0.02, 36), china, (0, 0, -0.08), tile=(1, 2))
    z, sponge = 0.0, hsv(rng.choice([0.1, 0.12, 0.06, 0.97]), 0.5, 0.85)
    for tier in range(tiers):
        r, tall = radius * (1 - 0.36 * tier), rng.uniform(0.34, 0.42) * (1 - 0.15 * tier)
        inside = textured(patterns.bands([sponge, sponge, CREAM, sponge, shade(colours[1], 1.1), sponge, sponge]), 0.9)
        add(_upright(prism(sector(r * 0.97, missing), tall, bevel=0.01), tall), inside, (0, 0, z + tall / 2))
        add(_shell(r, missing, tall), textured(coat, 0.4), (0, 0, z + tall / 2), tile=(1.5, 1))
        add(prism(sector(r + 0.035, missing), 0.075, bevel=0.03), drip, (0, 0, z + tall))
        for angle in np.arange(-60 + missing / 2 + 8, 300 - missing / 2 - 4, 30.0):
            x, y = (r + 0.012) * np.cos(np.radians(angle)), (r + 0.012) * np.sin(np.radians(angle))
            drop = rng.uniform(0.06, 0.2)
            add(tube([(x, y, z + tall - drop), (x, y, z + tall)], 0.036, 8), drip)
            add(ball(0.045, 8), plain(shade(colours[2], 1.5), 0.5), (1.08 * x, 1.08 * y, z + 0.03))
        z += tall + 0.03
    _candles(rng, colours, z, radius * (1 - 0.36 * (tiers - 1)), missing)


def _upright(solid: Solid, tall: float) -> Solid:
    """Return `solid` with texture coordinates by height only, so that layers show where the cake is cut."""
    corners = solid.points[np.concatenate(solid.faces)]
    return solid._replace(uvs=np.stack([solid.uvs[:, 0], 0.01 + 0.98 * (corners[:, 2] / tall + 0.5)], axis=1))


def _shell(radius: float, missing: float, tall: float) -> Solid:
    """Return the icing around the side."""
    rim = sector(radius, missing)[1:]
    wall = np.concatenate([rim, rim[::-1] * 0.93])
    return prism(wall, tall, bevel=0.008)


def _candles(rng: Rng, colours: list[Colour], z: float, radius: float, missing: float) -> None:
    wax = textured(patterns.stripes(shade(colours[2], 1.6), colours[2], 4, "v"), 0.5)
    count = int(rng.integers(3, 7))
    for k in range(count):
        angle = np.radians(-60 + missing / 2 + (360 - missing) * (k + 0.5) / count)
        x, y = 0.68 * radius * np.cos(angle), 0.68 * radius * np.sin(angle)
        add(cylinder(0.032, 0.24, 0.006, 10), wax, (x, y, z), tile=(1, 1))
        flame = lathe([(0, 0), *curve([(0.03, 0.02), (0.036, 0.05), (0.0, 0.14)], 3)], 10)
        add(flame, plain((1.0, 0.72, 0.15), 0.4), (x, y, z + 0.25))
    red = plain(hsv(0.98, 0.85, 0.85), 0.25)
    add(ball(0.085, 14), red, (0, 0.02, z + 0.07))
    add(
        tube(curve([(0, 0.02, z + 0.14), (0.03, 0.02, z + 0.22), (0.09, 0.03, z + 0.27)], 3), 0.013, 6),
        plain(hsv(0.3, 0.7, 0.5)),
    )
