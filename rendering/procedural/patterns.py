# SPDX-License-Identifier: GPL-3.0-or-later
"""Seamlessly tiling textures: arrays `[rows, columns, 3]` of sRGB values from 0 to 1."""

import numpy as np

from rendering.procedural.colours import Colour, shade
from rendering.procedural.shapes import Array, Rng

SIDE_PIXELS = 128


def grid(side: int = SIDE_PIXELS) -> tuple[Array, Array]:
    """Return the coordinates (u, v) of the pixel centres, v upwards as in texture space."""
    steps = (np.arange(side) + 0.5) / side
    u, v = np.meshgrid(steps, steps[::-1])
    return u, v


def blend(low: Colour, high: Colour, weight: Array) -> Array:
    """Return a mix of the colours: `low` for weight 0, `high` for weight 1."""
    w = np.clip(weight, 0, 1)[..., None]
    return np.asarray(low) * (1 - w) + np.asarray(high) * w


def edge(distance: Array, softness: float = 0.01) -> Array:
    """Return 1 inside (negative distance) and 0 outside, with an antialiased border."""
    return np.clip(0.5 - distance / (2 * softness), 0, 1)


def noise(rng: Rng, u_waves: int = 4, v_waves: int = 4, terms: int = 14) -> Array:
    """Return a smooth, tiling random field of about zero mean and unit deviation."""
    u, v = grid()
    field = np.zeros_like(u)
    for _ in range(terms):
        a, b = rng.integers(-u_waves, u_waves + 1), rng.integers(-v_waves, v_waves + 1)
        field += np.cos(2 * np.pi * (a * u + b * v + rng.uniform()))
    return field * np.sqrt(2 / terms)


def mottled(rng: Rng, colour: Colour, strength: float = 0.06, waves: int = 6) -> Array:
    """Return one colour, slightly uneven like felt, clay or plaster."""
    return np.asarray(colour) * (1 + strength * noise(rng, waves, waves)[..., None])


def wood(rng: Rng, colour: Colour, rings: int = 5) -> Array:
    """Return wood with its grain along u."""
    _, v = grid()
    warp = 0.35 * noise(rng, 1, 2, 8)
    bands = 0.5 + 0.5 * np.sin(2 * np.pi * (rings * v + warp))
    fibres = noise(rng, 3, 40, 20)
    return blend(shade(colour, 0.7), colour, bands**0.7) * (1 + 0.05 * fibres[..., None])


def planks(rng: Rng, colour: Colour, rows: int = 4) -> Array:
    """Return boards along u with dark gaps and slightly different colours."""
    _, v = grid()
    tone = rng.uniform(0.8, 1.08, rows)[np.minimum((v * rows).astype(int), rows - 1)]
    gap = np.abs((v * rows + 0.5) % 1 - 0.5) < 0.06
    return wood(rng, colour, 2 * rows) * np.where(gap, 0.45, tone)[..., None]


def stripes(low: Colour, high: Colour, count: int = 6, along: str = "u", width: float = 0.5) -> Array:
    """Return `count` stripes of `high` across the direction `along`; `width` is their part of the area."""
    t = grid()[0 if along == "u" else 1] * count
    return blend(low, high, edge(np.abs(t % 1 - 0.5) - width / 2, 0.03))


def bands(colours: list[Colour]) -> Array:
    """Return equal bands from v = 0 upwards."""
    _, v = grid()
    return np.asarray(colours)[np.minimum((v * len(colours)).astype(int), len(colours) - 1)]


def dots(low: Colour, high: Colour, count: int = 5, radius: float = 0.3) -> Array:
    """Return staggered dots; `count` should be even to tile."""
    u, v = grid()
    x, y = u * count, v * count
    x = x + 0.5 * (np.floor(y) % 2)
    return blend(low, high, edge(np.hypot(x % 1 - 0.5, y % 1 - 0.5) - radius, 0.05))


def checker(low: Colour, high: Colour, count: int = 6) -> Array:
    """Return a checkerboard of `count` squares per side; `count` should be even to tile."""
    u, v = grid()
    return blend(low, high, ((np.floor(u * count) + np.floor(v * count)) % 2).astype(float))


def plaid(base: Colour, across: Colour, down: Colour, count: int = 3) -> Array:
    """Return crossing sets of translucent stripes, like a tartan."""
    u, v = grid()
    cloth = blend(base, across, 0.65 * (np.abs(u * count % 1 - 0.5) < 0.22))
    weight = 0.65 * (np.abs(v * count % 1 - 0.5) < 0.22)[..., None]
    cloth = cloth * (1 - weight) + np.asarray(down) * weight
    thread = (np.abs(u * count % 1) < 0.08) | (np.abs(v * count % 1) < 0.08)
    return np.where(thread[..., None], shade(base, 1.6), cloth)


def zigzag(low: Colour, high: Colour, count: int = 4) -> Array:
    """Return `count` zigzag bands."""
    u, v = grid()
    t = v * count + 0.7 * np.abs(u * count % 1 - 0.5)
    return blend(low, high, edge(np.abs(t % 1 - 0.5) - 0.25, 0.03))


def bricks(rng: Rng, colour: Colour, mortar: Colour, rows: int = 8) -> Array:
    """Return `rows` rows of bricks."""
    u, v = grid()
    row = np.minimum((v * rows).astype(int), rows - 1)
    x = (u * rows / 2 + 0.5 * (row % 2)) % (rows / 2)
    tone = rng.uniform(0.75, 1.1, (rows, rows))[row, x.astype(int)]
    joint = (np.abs(x % 1 - 0.5) > 0.44) | (np.abs(v * rows % 1 - 0.5) > 0.4)
    return np.where(joint[..., None], np.asarray(mortar), np.asarray(colour) * tone[..., None])


def scales(low: Colour, high: Colour, rows: int = 6) -> Array:
    """Return overlapping round scales or shingles, `low` at their rims; `rows` should be even to tile."""
    u, v = grid()
    y = v * rows % 1
    x = np.abs((u * rows + 0.5 * (np.floor(v * rows) % 2)) % 1 - 0.5)
    upper = np.hypot(1.9 * x, 1 - y)
    lower = np.hypot(1.9 * (0.5 - x), y)
    return blend(low, high, 1 - np.where(upper < 1, upper, 0.7 * lower) ** 4)


def patches(rng: Rng, low: Colour, high: Colour, amount: float = 0.4, waves: int = 3) -> Array:
    """Return patches of `high` on about the part `amount` of `low`, like the coat of a cow or a cat."""
    field = noise(rng, waves, waves)
    level = np.quantile(field, 1 - amount)
    return blend(low, high, edge(level - field, 0.08))


def stars(low: Colour, high: Colour, count: int = 4, points: int = 5) -> Array:
    """Return staggered stars (or, with more points, flowers); `count` should be even to tile."""
    u, v = grid()
    x = (u * count + 0.5 * (np.floor(v * count) % 2)) % 1 - 0.5
    y = v * count % 1 - 0.5
    reach = 0.28 + 0.12 * np.cos(points * (np.arctan2(y, x) - np.pi / 2))
    return blend(low, high, edge(np.hypot(x, y) - reach, 0.05))


def cloth(rng: Rng, colours: list[Colour]) -> Array:
    """Return a random pattern of the first three colours."""
    a, b, c = colours[:3]
    light = shade(b, 1.65)
    return [
        lambda: stripes(a, light, 5),
        lambda: dots(a, light, 4),
        lambda: plaid(a, b, c, 3),
        lambda: checker(a, light, 6),
        lambda: zigzag(a, light, 4),
        lambda: stars(a, light, 4, int(rng.integers(5, 7))),
    ][rng.integers(6)]()
