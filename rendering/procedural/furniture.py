# SPDX-License-Identifier: GPL-3.0-or-later
"""Furniture, its front towards -y."""

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
    vivid,
)
from rendering.procedural.scene import add, both
from rendering.procedural.shapes import Rng, ball, box, cone, curve, cylinder, lathe, prism, ring, tube


def timber(rng: Rng) -> Colour:
    """Return the colour of a natural wood or, equally often, of a bright paint."""
    if rng.uniform() < 0.5:
        return hsv(rng.uniform(0.05, 0.11), rng.uniform(0.6, 0.8), rng.uniform(0.75, 1.0))
    return vivid(rng.uniform(), rng.uniform(0.6, 0.8), rng.uniform(0.8, 0.95))


def chair(rng: Rng) -> None:
    """Add a chair to the scene."""
    wood = textured(patterns.wood(rng, timber(rng)))
    fabric = textured(patterns.cloth(rng, palette(rng, 3)), 0.8)
    width, depth, seat = rng.uniform(0.46, 0.6), rng.uniform(0.44, 0.54), rng.uniform(0.4, 0.52)
    back, leg = rng.uniform(0.42, 0.66), rng.uniform(0.05, 0.075)
    x, y = width / 2 - leg / 2, depth / 2 - leg / 2
    add(box((width, depth, 0.06), 0.02, grain=True), wood, (0, 0, seat))
    both(box((leg, leg, seat), grain=True), wood, (x, -y, seat / 2))
    both(box((leg, leg, seat + back), grain=True), wood, (x, y, (seat + back) / 2))
    both(box((0.03, depth - leg, 0.035), grain=True), wood, (x, 0, seat * 0.4))
    add(box((width - leg, 0.03, 0.035), grain=True), wood, (0, -y, seat * 0.55))
    arch = curve([(-width / 2, 0), (width / 2, 0), (width / 2, 0.1), (0, 0.17), (-width / 2, 0.1)], 1)
    add(prism(arch, 0.06, "y", 0.015), wood, (0, y, seat + back - 0.06))
    style = rng.integers(3)
    if style == 0:
        for slat in np.linspace(-0.7, 0.7, int(rng.integers(4, 6))) * x:
            add(box((0.04, 0.03, back), grain=True), wood, (slat, y, seat + back / 2))
    elif style == 1:
        for height in (0.35, 0.65):
            add(box((width, 0.035, 0.09), grain=True), wood, (0, y, seat + height * back))
    else:
        add(box((width - leg, 0.09, back * 0.72), 0.035), fabric, (0, y - 0.02, seat + back * 0.5))
    add(box((width * 0.94, depth * 0.92, 0.09), 0.04), fabric, (0, -0.015, seat + 0.07), tile=(1.0, 1.0))
    if rng.uniform() < 0.4:
        both(box((0.06, depth, 0.04), grain=True), wood, (x, -0.01, seat + 0.24))
        both(box((0.045, 0.045, 0.24), grain=True), wood, (x, -y + 0.02, seat + 0.12))


def table(rng: Rng) -> None:
    """Add a table to the scene."""
    colour = timber(rng)
    wood, top = textured(patterns.wood(rng, colour)), textured(patterns.planks(rng, shade(colour, 1.15), 5))
    colours = palette(rng, 3)
    runner = textured(patterns.cloth(rng, colours), 0.8)
    width, depth, height = rng.uniform(1.0, 1.4), rng.uniform(0.65, 0.85), rng.uniform(0.6, 0.75)
    if rng.uniform() < 0.5:
        leg = lathe(curve([(0.0, 0), (0.03, 0), (0.045, 0.15), (0.03, 0.3), (0.06, 0.6), (0.04, 0.8), (0, 1)], 3), 12)
    else:
        leg = lathe([(0, 0), (0.04, 0), (0.065, 1), (0, 1)], 4)
    for end in (-1, 1):
        both(
            leg._replace(points=leg.points * (1, 1, height)),
            wood,
            (width / 2 - 0.09, end * (depth / 2 - 0.09), 0),
        )
    add(box((width - 0.16, depth - 0.16, 0.13), grain=True), wood, (0, 0, height - 0.06))
    add(box((width, depth, 0.06), 0.02, grain=True), top, (0, 0, height + 0.02))
    add(box((width * 0.42, 0.04, 0.1), 0.012), plain(colours[2]), (0, 0.085 - depth / 2, height - 0.07))
    add(ball(0.025, 10), plain(BRASS, 0.3), (0, 0.055 - depth / 2, height - 0.07))
    shift = rng.uniform(-0.15, 0.15)
    add(box((0.36, depth + 0.04, 0.02), 0.008), runner, (shift, 0, height + 0.055))
    for end in (-1, 1):
        add(box((0.36, 0.02, 0.17), 0.008), runner, (shift, end * (depth / 2 + 0.015), height - 0.02))
    _fruit_bowl(rng, (shift, 0, height + 0.06), colours[0])
    side = 1 if rng.uniform() < 0.5 else -1
    x, y = side * width * 0.37, -depth * 0.22
    add(cone(0.04, 0.055, 0.13, 0.01, 14), plain(colours[1]), (x, y, height + 0.05))
    add(ring(0.035, 0.012, 12, 6), plain(colours[1]), (x, y - 0.055, height + 0.115), (0, 90, 0))


def _fruit_bowl(rng: Rng, at: tuple[float, float, float], colour: Colour) -> None:
    x, y, z = at
    profile = [(0, 0), (0.07, 0), (0.08, 0.02), (0.17, 0.09), (0.16, 0.1), (0.08, 0.05), (0, 0.04)]
    add(lathe(curve(profile, 2), 20), plain(shade(colour, 0.9), 0.3), at)
    for k in range(5):
        angle = 2 * np.pi * k / 4 + 0.5
        reach, lift = (0.08, 0.09) if k < 4 else (0.0, 0.15)
        fruit = hsv([0.0, 0.08, 0.28, 0.13][k % 4], 0.85, 0.9)
        place = (x + reach * np.cos(angle), y + reach * np.sin(angle), z + lift)
        add(ball(rng.uniform(0.058, 0.07), 12), plain(fruit, 0.4), place)


def bookshelf(rng: Rng) -> None:
    """Add a bookshelf with books to the scene."""
    wood = textured(patterns.wood(rng, timber(rng)))
    width, depth, rows = rng.uniform(0.66, 0.92), rng.uniform(0.3, 0.4), int(rng.integers(3, 5))
    pitch, t = rng.uniform(0.3, 0.36), 0.045
    height = rows * pitch + t
    both(box((t, depth, height), grain=True), wood, (width / 2 - t / 2, 0, height / 2))
    add(
        box((width - t, 0.03, height - t)),
        textured(patterns.cloth(rng, palette(rng, 3)), 0.9),
        (0, depth / 2 - 0.02, height / 2),
    )
    for row in range(rows + 1):
        add(box((width - t, depth, t), grain=True), wood, (0, 0, row * pitch + t / 2))
    add(box((width + 0.06, depth + 0.05, 0.05), 0.02, grain=True), wood, (0, 0, height + 0.01))
    for row in range(rows):
        _books(rng, row * pitch + t, width / 2 - t, depth, pitch - t)
    globe = textured(patterns.patches(rng, hsv(0.57, 0.7, 0.85), hsv(0.3, 0.6, 0.7), 0.4))
    x = rng.choice([-1, 1]) * width * 0.26
    add(cylinder(0.07, 0.03, around=14), plain(BRASS, 0.3), (x, 0, height + 0.035))
    add(ball(0.1, 18), globe, (x, 0, height + 0.15), (20, 15, 0))


def _books(rng: Rng, floor: float, half: float, depth: float, room: float) -> None:
    """Add books side by side from the left until the shelf is nearly full, now and then with a gap or a pot."""
    x = -half + 0.01
    while x < half - 0.1:
        thick, tall = rng.uniform(0.055, 0.1), room * rng.uniform(0.62, 0.92)
        colour = vivid(rng.uniform(), rng.uniform(0.65, 0.85), rng.uniform(0.75, 0.97))
        if rng.uniform() < 0.1 and x < half - 0.2:
            add(cone(0.05, 0.07, 0.1, 0.01, 12), plain(colour), (x + 0.08, -0.05, floor))
            add(ball((0.09, 0.09, 0.09), 12), plain(hsv(0.3, 0.7, 0.65)), (x + 0.08, -0.05, floor + 0.15))
            x += 0.17
            continue
        reach = depth * rng.uniform(0.62, 0.8)
        middle = (x + thick / 2, depth / 2 - 0.04 - reach / 2, floor + tall / 2)
        add(box((thick, reach, tall), 0.008), plain(colour), middle)
        if rng.uniform() < 0.35:
            band = box((thick + 0.004, reach + 0.006, 0.05), 0.008)
            add(band, plain(shade(colour, 1.6)), (*middle[:2], floor + 0.75 * tall))
        x += thick + 0.004


def sofa(rng: Rng) -> None:
    """Add a sofa to the scene."""
    colours = palette(rng, 4)
    seats = int(rng.integers(2, 4))
    pitch, depth, arm = rng.uniform(0.5, 0.58), rng.uniform(0.75, 0.9), rng.uniform(0.18, 0.26)
    width, seat, back, rise = seats * pitch, 0.26, rng.uniform(0.42, 0.58), rng.uniform(0.24, 0.34)
    weave = patterns.stripes(colours[0], shade(colours[0], 1.25), 8) if rng.uniform() < 0.4 else None
    cover = textured(patterns.mottled(rng, colours[0], 0.05, 10) if weave is None else weave, 0.85)
    seat_colour = shade(colours[0], 1.35) if rng.uniform() < 0.5 else colours[3]
    cushion = textured(patterns.mottled(rng, seat_colour, 0.05, 10), 0.85)
    add(box((width + 0.1, depth, seat), 0.05), cover, (0, 0, 0.1 + seat / 2))
    add(
        box((width + 0.1, 0.26, back + 0.3), 0.11),
        cover,
        (0, depth / 2 - 0.1, 0.1 + seat + back / 2),
        (-6, 0, 0),
    )
    if rng.uniform() < 0.5:
        both(
            box((arm, depth, seat + rise), 0.085),
            cover,
            (width / 2 + arm / 2, -0.02, 0.1 + (seat + rise) / 2),
        )
    else:
        both(
            box((arm * 0.8, depth, seat + rise - 0.08), 0.03),
            cover,
            (width / 2 + arm / 2, -0.02, 0.06 + (seat + rise) / 2),
        )
        both(
            cylinder(arm * 0.62, depth + 0.02, 0.03, 18),
            cover,
            (width / 2 + arm * 0.6, depth / 2 - 0.01, 0.1 + seat + rise - 0.07),
            (90, 0, 0),
        )
    for k in range(seats):
        x = (k - (seats - 1) / 2) * pitch
        add(box((pitch - 0.015, depth - 0.2, 0.17), 0.06), cushion, (x, -0.1, 0.1 + seat + 0.06))
        add(
            box((pitch - 0.02, 0.18, back), 0.07),
            cushion,
            (x, depth / 2 - 0.26, 0.1 + seat + back / 2 + 0.06),
            (-10, 0, 0),
        )
    for side in (-1, 1)[: int(rng.integers(1, 3))]:
        pillow = textured(patterns.cloth(rng, colours[1:]), 0.8)
        place = (side * (width / 2 - 0.2), depth / 2 - 0.42, 0.1 + seat + 0.33)
        add(box((0.4, 0.17, 0.4), 0.08), pillow, place, (-14, side * 8, -side * 22))
    for y in (-1, 1):
        both(
            cone(0.03, 0.05, 0.12, 0.01, 12),
            plain(hsv(0.07, 0.6, 0.45)),
            (width / 2, y * (depth / 2 - 0.1), 0),
        )


def lamp(rng: Rng) -> None:
    """Add a lamp to the scene."""
    colours = palette(rng, 3)
    metal = plain(BRASS if rng.uniform() < 0.5 else colours[2], 0.35)
    tall, wide, high = rng.uniform(0.72, 1.0), rng.uniform(0.3, 0.38), rng.uniform(0.34, 0.46)
    narrow, reach = wide * rng.uniform(0.45, 0.85), rng.uniform(0.12, 0.34)
    image = patterns.cloth(rng, colours) if rng.uniform() < 0.7 else patterns.stripes(colours[0], CREAM, 6)
    wall = [(wide, 0), (narrow, high), (narrow - 0.02, high), (wide - 0.02, 0)]
    y = -reach
    # The skirt is a closed shell: outside up, inside down, and over the lower rim back to the start.
    shell = lathe([(wide - 0.01, -0.004), *wall, (wide - 0.01, -0.004)], 28)
    add(
        shell._replace(faces=shell.faces[:-2], uvs=shell.uvs[:-56]),
        textured(image, 0.8),
        (0, y, tall),
        tile=(3, 2),
    )
    add(ball((0.09, 0.09, 0.11), 14), plain(hsv(0.14, 0.35, 1.0)), (0, y, tall + 0.1))
    add(cylinder(narrow - 0.01, 0.015, 0.004), metal, (0, y, tall + high - 0.05))
    add(cone(0.26, 0.2, 0.07, 0.02), metal, (0, 0.02, 0))
    stem = curve(
        [
            (0, 0.02, 0.04),
            (0, 0.05, 0.5 * tall),
            (0, 0.03, tall * 0.95),
            (0, 0.4 * y, tall + high * 0.8),
            (0, y, tall + high * 0.9),
        ],
        5,
    )
    add(tube(stem, 0.032, 10), metal)
    add(tube([(0, y, tall + high * 0.95), (0, y, tall + 0.1)], 0.024, 8), metal)
    side = rng.choice([-1, 1])
    shelf = textured(patterns.wood(rng, timber(rng)))
    add(cylinder(0.19, 0.04, 0.012), shelf, (side * 0.12, 0.02, tall * rng.uniform(0.36, 0.46)))
    add(tube([(wide * 0.7, y - 0.05, tall), (wide * 0.7, y - 0.05, tall - 0.22)], 0.01, 6), metal)
    add(ball(0.03, 10), plain(colours[1]), (wide * 0.7, y - 0.05, tall - 0.24))


def bed(rng: Rng) -> None:
    """Add a bed to the scene."""
    colours = palette(rng, 3)
    wood = textured(patterns.wood(rng, timber(rng)))
    quilt = textured(patterns.cloth(rng, colours), 0.85)
    linen = textured(patterns.mottled(rng, (0.85, 0.84, 0.80), 0.03), 0.85)
    width, length, head = rng.uniform(0.9, 1.4), rng.uniform(1.7, 2.0), rng.uniform(0.75, 1.0)
    half, foot = width / 2 + 0.05, rng.uniform(0.45, 0.6)
    crown = rng.uniform(0.0, 0.22)
    for y, tall in ((length / 2, head), (-length / 2, foot)):
        outline = [
            (-half, 0.16),
            (half, 0.16),
            (half, tall),
            (0.5 * half, tall + 0.7 * crown),
            (0, tall + crown),
        ]
        outline += [(-0.5 * half, tall + 0.7 * crown), (-half, tall)]
        add(prism(outline, 0.08, "y", 0.02), wood, (0, y, 0))
        both(cylinder(0.055, tall + 0.1, 0.02, 14), wood, (half, y, 0))
        both(ball(0.08, 14), plain(colours[2], 0.4), (half, y, tall + 0.15))
    add(box((width, length, 0.16), grain=True), wood, (0, 0, 0.25))
    add(box((width - 0.02, length - 0.08, 0.24), 0.07), linen, (0, 0, 0.42))
    fold = length * rng.uniform(0.58, 0.68)
    add(box((width + 0.1, fold, 0.27), 0.08), quilt, (0, 0.05 - (length - fold) / 2, 0.45), tile=(1.4, 1.4))
    add(box((width + 0.12, 0.2, 0.07), 0.03), plain(colours[1], 0.8), (0, fold - length / 2 + 0.02, 0.575))
    pillow = textured(patterns.cloth(rng, colours[::-1]), 0.85) if rng.uniform() < 0.5 else linen
    count = 2 if width > 1.1 else 1
    for k in range(count):
        x = (k - (count - 1) / 2) * width * 0.46
        add(box((width * 0.8 / count, 0.36, 0.17), 0.075), pillow, (x, length / 2 - 0.26, 0.6), (16, 0, 0))
    _teddy((-0.2 * width, -0.1 * length, 0.58), plain(hsv(0.07, 0.65, 0.7), 0.9))


def _teddy(at: tuple[float, float, float], fur: Material) -> None:
    """Add a toy bear lying on its back."""
    x, y, z = at
    add(ball((0.11, 0.13, 0.09), 14), fur, (x, y, z + 0.07))
    add(ball(0.1, 14), fur, (x, y + 0.19, z + 0.1))
    add(ball(0.045, 10), plain(CREAM), (x, y + 0.18, z + 0.18))
    add(ball(0.018, 8), plain(DARK), (x, y + 0.18, z + 0.22))
    for side in (-1, 1):
        add(ball(0.04, 10), fur, (x + side * 0.08, y + 0.27, z + 0.11))
        add(ball((0.09, 0.045, 0.045), 10), fur, (x + side * 0.13, y + 0.05, z + 0.1))
        add(ball((0.05, 0.09, 0.05), 10), fur, (x + side * 0.08, y - 0.14, z + 0.07))
        add(ball(0.016, 8), plain(DARK), (x + side * 0.045, y + 0.2, z + 0.185))
