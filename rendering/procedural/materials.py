"""Materials and colours. Colours are sRGB triples from 0 to 1, as painted in the textures."""

import colorsys

import bpy
import numpy as np

from rendering.procedural.shapes import Array

Colour = tuple[float, float, float]

DARK: Colour = (0.13, 0.12, 0.16)
CREAM: Colour = (0.93, 0.86, 0.70)
STEEL: Colour = (0.58, 0.63, 0.70)
BRASS: Colour = (0.90, 0.66, 0.20)
LEAF: Colour = (0.27, 0.62, 0.20)


def hsv(hue: float, saturation: float = 0.8, value: float = 0.9) -> Colour:
    return colorsys.hsv_to_rgb(hue % 1.0, saturation, value)


def palette(rng: np.random.Generator, count: int) -> list[Colour]:
    """Saturated colours with hues well apart, the first at any hue."""
    start = rng.uniform()
    hues = start + np.arange(count) * 0.382 + rng.uniform(-0.04, 0.04, count)
    return [hsv(hue, rng.uniform(0.68, 0.88), rng.uniform(0.78, 0.97)) for hue in hues.tolist()]


def shade(colour: Colour, factor: float) -> Colour:
    """Darker below 1; above 1 lighter, towards a warm white."""
    if factor <= 1:
        return tuple(factor * c for c in colour)
    return tuple(c + (w - c) * (factor - 1) for c, w in zip(colour, (1.0, 0.97, 0.9), strict=True))


def linear(colour: Colour) -> Colour:
    """sRGB to the linear values Blender wants for plain colours."""
    return tuple(c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour)


# Part of its own colour that every surface gives off. The scenes these objects are meant for have one lamp
# and a nearly dark sky; without this, half of every view would be black.
GLOW = 0.06


def plain(colour: Colour, roughness: float = 0.5, metallic: float = 0.0) -> bpy.types.Material:
    material, surface = _surface(roughness)
    surface.inputs["Base Color"].default_value = (*linear(colour), 1.0)
    surface.inputs["Emission Color"].default_value = (*linear(colour), 1.0)
    surface.inputs["Metallic"].default_value = metallic
    return material


def textured(pixels: Array, roughness: float = 0.6) -> bpy.types.Material:
    """A material painted with an image of shape (rows, columns, 3), top row first."""
    material, surface = _surface(roughness)
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


def _surface(roughness: float) -> tuple[bpy.types.Material, bpy.types.Node]:
    material = bpy.data.materials.new("surface")
    material.use_nodes = True
    material.use_backface_culling = True
    surface = material.node_tree.nodes["Principled BSDF"]
    surface.inputs["Roughness"].default_value = roughness
    surface.inputs["Emission Strength"].default_value = GLOW
    return material, surface
