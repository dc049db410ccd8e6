# SPDX-License-Identifier: GPL-3.0-or-later
"""Materials and colours of procedural objects. Colours are sRGB triples from 0 to 1."""

import colorsys
from typing import TypeAlias

import bpy
import numpy as np

from rendering.procedural.shapes import Array, Rng

Colour = tuple[float, float, float]

Material: TypeAlias = bpy.types.Material

DARK: Colour = (0.13, 0.12, 0.16)
CREAM: Colour = (0.93, 0.86, 0.70)
STEEL: Colour = (0.58, 0.63, 0.70)
BRASS: Colour = (0.90, 0.66, 0.20)
LEAF: Colour = (0.27, 0.62, 0.20)


def hsv(hue: float, saturation: float = 0.8, value: float = 0.9) -> Colour:
    """Return the colour with a `hue` in turns, a saturation and a value."""
    return colorsys.hsv_to_rgb(hue % 1.0, saturation, value)


def vivid(turn: float, saturation: float = 0.8, value: float = 0.92) -> Colour:
    """Return a bright colour: red, orange, yellow, green, teal, blue, violet and pink at equal distances of `turn`.

    Blue and violet are paler, since they look darker than other hues at equal value.
    """
    hue = float(np.interp(turn % 1.0, np.arange(9) / 8, [0, 0.07, 0.135, 0.31, 0.48, 0.58, 0.74, 0.92, 1.0]))
    paler = 1 - 0.3 * np.exp(-(((hue - 0.7) / 0.09) ** 2))
    return hsv(hue, saturation * float(paler), min(1.0, value + 0.08 * (1 - float(paler)) / 0.3))


def palette(rng: Rng, count: int) -> list[Colour]:
    """Return saturated colours with well separated hues; the first hue is uniform."""
    turns = rng.uniform() + np.arange(count) * 0.382 + rng.uniform(-0.04, 0.04, count)
    return [vivid(turn, rng.uniform(0.76, 0.92), rng.uniform(0.88, 1.0)) for turn in turns.tolist()]


def shade(colour: Colour, factor: float) -> Colour:
    """Return a darker colour for a factor below 1, a lighter one above 1, towards a warm white."""
    if factor <= 1:
        r, g, b = (factor * c for c in colour)
    else:
        r, g, b = (c + (w - c) * (factor - 1) for c, w in zip(colour, (1.0, 0.97, 0.9), strict=True))
    return r, g, b


def linear(colour: Colour) -> Colour:
    """Return the linear values of an sRGB colour, which Blender takes for plain colours."""
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour)
    return r, g, b


# Emission of every surface as a part of its colour: with one lamp and a nearly dark world, half of every view would be
# black without it.
EMISSION = 0.1


def plain(colour: Colour, roughness: float = 0.5, metallic: float = 0.0) -> Material:
    """Return a material of one colour."""
    # Parts with equal values share a material by its name, which keeps the file small.
    name = "plain " + " ".join(f"{value:.3f}" for value in (*colour, roughness, metallic))
    if name in bpy.data.materials:
        return bpy.data.materials[name]
    material, surface = _surface(name, roughness)
    surface.inputs["Base Color"].default_value = (*linear(colour), 1.0)
    surface.inputs["Emission Color"].default_value = (*linear(colour), 1.0)
    surface.inputs["Metallic"].default_value = metallic
    return material


def textured(pixels: Array, roughness: float = 0.7) -> Material:
    """Return a material with the texture `pixels` `[rows, columns, 3]`, top row first."""
    material, surface = _surface("painted", roughness)
    rows, columns = pixels.shape[:2]
    image = bpy.data.images.new("pattern", columns, rows)
    rgba = np.ones((rows, columns, 4), np.float32)
    rgba[..., :3] = np.round(np.clip(pixels[::-1], 0, 1) * 255) / 255
    image.pixels.foreach_set(rgba.ravel())
    image.update()
    node = material.node_tree.nodes.new("ShaderNodeTexImage")
    node.image = image
    for socket in ("Base Color", "Emission Color"):
        material.node_tree.links.new(node.outputs["Color"], surface.inputs[socket])
    return material


def _surface(name: str, roughness: float) -> tuple[Material, bpy.types.Node]:
    material = bpy.data.materials.new(name)
    material.use_nodes = True
    material.use_backface_culling = True
    surface = material.node_tree.nodes["Principled BSDF"]
    surface.inputs["Roughness"].default_value = roughness
    surface.inputs["Emission Strength"].default_value = EMISSION
    return material, surface
