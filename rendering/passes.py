# SPDX-License-Identifier: GPL-3.0-or-later
"""What Cycles knows beside the colour: depth, normal, mask and albedo, each as a picture of its own.

`depth.png`: 16 bits, along the camera's axis, DEPTH_STEPS to the object size, 0 where there is nothing.
`normal.webp`: camera space (x right, y up, z towards the camera), [-1, 1] → [0, 255], alpha where there is nothing.
`mask.png`: 255 where the first thing that a ray meets is the object. `albedo.webp`: base colour, sRGB, no light on it.
"""

from collections.abc import Sequence
from pathlib import Path

import bpy
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rendering.picture import save_lossless

DEPTH_STEPS = 10_000
FAR = 1e9  # Cycles writes 1e10 where a ray meets nothing
SOCKETS = {"depth": "Depth", "normal": "Normal", "albedo": "albedo"}
COLOURS = ("Base Color", "Color")  # the input of a shader that says what colour the surface has

Array = NDArray[np.float64]


def request(passes: Sequence[str], folder: Path) -> None:
    """Let every render of the scene write what `passes` need as EXR into `folder`."""
    if not passes:
        return
    scene, layer = bpy.context.scene, bpy.context.view_layer
    layer.use_pass_z = layer.use_pass_normal = True
    if "albedo" in passes:
        # Cycles' own pass of diffuse colour is black on metal, and a glTF that says nothing is metal.
        layer.aovs.add().name = "albedo"
        for material in bpy.data.materials:
            _show_base_colour(material)
    scene.use_nodes = True
    nodes, links = scene.node_tree.nodes, scene.node_tree.links
    source = nodes["Render Layers"]
    sink = nodes.new("CompositorNodeOutputFile")
    sink.base_path = str(folder)
    sink.format.file_format, sink.format.color_depth = "OPEN_EXR", "32"
    sink.file_slots.clear()
    for name, socket in SOCKETS.items():
        if socket in source.outputs:
            sink.file_slots.new(f"{name}_")
            links.new(source.outputs[socket], sink.inputs[-1])


def encode(passes: Sequence[str], rotation: Array, folder: Path, view: int) -> None:
    """Turn what the last render wrote into pictures `NNN.<pass>.<suffix>`; `rotation` `[3, 3]` is world→camera."""
    if not passes:
        return
    depth, normal = (_read(folder / f"{name}_0001.exr") for name in ("depth", "normal"))
    depth = depth[..., 0]
    mask = depth < FAR
    stem = str(folder / f"{view:03d}")
    if "depth" in passes:
        steps = np.where(mask, np.rint(depth * DEPTH_STEPS), 0)
        Image.fromarray(steps.clip(0, 65535).astype(np.uint16)).save(f"{stem}.depth.png")
    if "mask" in passes:
        Image.fromarray(mask).save(f"{stem}.mask.png")
    if "normal" in passes:
        inside = normal[..., :3] @ rotation.T
        length = np.linalg.norm(inside, axis=-1, keepdims=True)
        unit = np.divide(inside, length, out=np.zeros_like(inside), where=length > 0)
        _save(unit * 0.5 + 0.5, mask & (length[..., 0] > 0), f"{stem}.normal.webp")
    if "albedo" in passes:
        albedo = _read(folder / "albedo_0001.exr")
        share = albedo[..., 3:]  # of the samples that met the object
        colour = np.divide(albedo[..., :3], share, out=np.zeros_like(albedo[..., :3]), where=share > 0)
        _save(_srgb(colour), mask, f"{stem}.albedo.webp")


def _show_base_colour(material: bpy.types.Material) -> None:
    """Send what colours the surface, be it a texture or a value, to the render layer as well."""
    if not material.node_tree:
        return
    nodes, links = material.node_tree.nodes, material.node_tree.links
    sockets = [
        node.inputs[name] for node in nodes for name in COLOURS if node.type != "TEX_IMAGE" and name in node.inputs
    ]
    output = nodes.new("ShaderNodeOutputAOV")
    output.aov_name = "albedo"
    for socket in sorted(sockets, key=lambda socket: COLOURS.index(socket.name))[:1]:
        output.inputs["Color"].default_value = socket.default_value
        for link in socket.links:
            links.new(link.from_socket, output.inputs["Color"])


def _read(path: Path) -> Array:
    """An EXR as `[height, width, 4]`, the top row first; the file is removed."""
    image = bpy.data.images.load(str(path))
    image.colorspace_settings.name = "Non-Color"
    width, height = image.size
    pixels = np.empty(width * height * 4, dtype=np.float32)
    image.pixels.foreach_get(pixels)
    bpy.data.images.remove(image)
    path.unlink()
    return pixels.reshape(height, width, 4)[::-1].astype(np.float64)


def _save(colour: Array, alpha: NDArray[np.bool_], path: str) -> None:
    pixels = np.dstack([colour.clip(0, 1), alpha])
    save_lossless(Image.fromarray(np.rint(pixels * alpha[..., None] * 255).astype(np.uint8), "RGBA"), path)


def _srgb(linear: Array) -> Array:
    """IEC 61966-2-1."""
    linear = linear.clip(0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
