# SPDX-License-Identifier: GPL-3.0-or-later
"""Further passes of a view: depth, normal, mask and albedo, each as an image.

`depth.png`: 16 bits, along the camera's axis, `DEPTH_STEPS` per object size, 0 for the background.
`normal.webp`: camera space (x right, y up, z towards the camera), [-1, 1] → [0, 255], alpha 0 for the background.
`mask.png`: 1 bit, 1 for the object. `albedo.webp`: base colour without lighting, sRGB.
"""

from collections.abc import Sequence
from pathlib import Path

import bpy
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rendering.webp import save_lossless

DEPTH_STEPS = 10_000  # per object size
MAX_DEPTH = 1e9  # object sizes; Cycles writes 1e10 for the background
SOCKETS = {"depth": "Depth", "normal": "Normal", "albedo": "albedo", "opaque": "opaque"}
MIN_OPACITY = 0.5  # of a surface in these passes; they show what lies behind a more transparent one
COLOUR_SOCKETS = ("Base Color", "Color")  # inputs of shaders with the colour of the surface

Array = NDArray[np.float64]


def request(passes: Sequence[str], folder: Path) -> None:
    """Let every render of the scene write the data of `passes` as EXR into `folder`."""
    if not passes:
        return
    scene, layer = bpy.context.scene, bpy.context.view_layer
    layer.use_pass_z = layer.use_pass_normal = True
    layer.pass_alpha_threshold = MIN_OPACITY
    if "albedo" in passes:
        # Cycles' pass of the diffuse colour is black for metal, which is the default of glTF.
        layer.aovs.add().name = "albedo"
        share = layer.aovs.add()  # part of the samples that hit an opaque surface
        share.name, share.type = "opaque", "VALUE"
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
    """Convert the EXR files of the last render into images `NNN.<pass>.<suffix>`.

    Args:
        passes: Passes of `rendering.settings.PASSES`.
        rotation: World→camera `[3, 3]`.
        folder: Folder of the EXR files and the images.
        view: Number of the view.
    """
    if not passes:
        return
    depth, normal = (_read(folder / f"{name}_0001.exr") for name in ("depth", "normal"))
    depth = depth[..., 0]
    mask = depth < MAX_DEPTH
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
        albedo, share = (_read(folder / f"{name}_0001.exr") for name in ("albedo", "opaque"))
        share = share[..., :1]
        colour = np.divide(albedo[..., :3], share, out=np.zeros_like(albedo[..., :3]), where=share > 0)
        _save(_srgb(colour), mask, f"{stem}.albedo.webp")


def _show_base_colour(material: bpy.types.Material) -> None:
    """Output the base colour of `material`, a texture or a value, to the render layer where it is opaque.

    Cycles adds up the values of all surfaces along a ray up to the first opaque one, so the others output 0.
    """
    if not material.node_tree:
        return
    nodes, links = material.node_tree.nodes, material.node_tree.links
    sockets = [
        node.inputs[name]
        for node in nodes
        for name in COLOUR_SOCKETS
        if node.type != "TEX_IMAGE" and name in node.inputs
    ]
    opaque = nodes.new("ShaderNodeMath")
    opaque.operation = "GREATER_THAN"
    opaque.inputs[1].default_value = MIN_OPACITY - 1e-4
    _assign(material, opaque.inputs[0], _opacity(material))
    albedo = nodes.new("ShaderNodeVectorMath")
    albedo.operation = "SCALE"
    links.new(opaque.outputs[0], albedo.inputs["Scale"])
    for socket in sorted(sockets, key=lambda socket: COLOUR_SOCKETS.index(socket.name))[:1]:
        albedo.inputs[0].default_value = socket.default_value[:3]
        for link in socket.links:
            links.new(link.from_socket, albedo.inputs[0])
    for name, kind, value in (("albedo", "Color", albedo), ("opaque", "Value", opaque)):
        output = nodes.new("ShaderNodeOutputAOV")
        output.aov_name = name
        links.new(value.outputs[0], output.inputs[kind])


def _opacity(material: bpy.types.Material) -> float | bpy.types.NodeSocket:
    """Return the opacity of `material` in [0, 1], or the socket with it."""
    output = material.node_tree.get_output_node("CYCLES")
    if not (output and output.inputs["Surface"].is_linked):
        return 1.0
    return _shader_opacity(material, output.inputs["Surface"].links[0].from_node)


def _shader_opacity(material: bpy.types.Material, shader: bpy.types.Node) -> float | bpy.types.NodeSocket:
    match shader.type:
        case "BSDF_TRANSPARENT":
            return 0.0
        case "BSDF_PRINCIPLED":
            return _value(shader.inputs["Alpha"])
        case "MIX_SHADER":
            parts = [
                _shader_opacity(material, socket.links[0].from_node) if socket.is_linked else 1.0
                for socket in shader.inputs[1:]
            ]
            if parts == [1.0, 1.0]:
                return 1.0
            mix = material.node_tree.nodes.new("ShaderNodeMix")
            for name, value in zip(("Factor", "A", "B"), [_value(shader.inputs[0]), *parts], strict=True):
                _assign(material, mix.inputs[name], value)
            return mix.outputs["Result"]
    return 1.0


def _value(socket: bpy.types.NodeSocket) -> float | bpy.types.NodeSocket:
    return socket.links[0].from_socket if socket.is_linked else socket.default_value


def _assign(material: bpy.types.Material, socket: bpy.types.NodeSocket, value: float | bpy.types.NodeSocket) -> None:
    if isinstance(value, float):
        socket.default_value = value
    else:
        material.node_tree.links.new(value, socket)


def _read(path: Path) -> Array:
    """Return an EXR as `[H, W, 4]`, the top row first, and remove the file."""
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
    """Return the sRGB values (IEC 61966-2-1) of linear ones, clipped to [0, 1]."""
    linear = linear.clip(0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
