# SPDX-License-Identifier: GPL-3.0-or-later
"""Set up Blender's scene and Cycles, and render views.

`bpy` holds one scene, so that a process renders one object at a time.
"""

import math
import platform
from pathlib import Path

import bpy
import numpy as np
from mathutils import Matrix
from numpy.typing import NDArray

from rendering import lighting
from rendering.cameras import LENS_MM, SENSOR_MM, project
from rendering.lights import Light
from rendering.materials import drawn_materials
from rendering.settings import RenderSettings

VERSION = bpy.app.version_string
TEXTURE_COLOURS = 1000  # number of colours that a texture counts as
COLOUR_SOCKETS = ("Base Color", "Color", "Emission Color")
TEXTURE_NODES = {"ShaderNodeTexImage", "ShaderNodeVertexColor", "ShaderNodeAttribute"}


class NoDevice(Exception):
    """The machine has no GPU of the requested kind."""


def reset() -> None:
    """Load the factory scene without its cube, so that nothing of the previous object remains.

    Its point light (1000 W) and grey world are part of the lighting `zero123`.
    """
    bpy.ops.wm.read_factory_settings(use_empty=False)
    bpy.data.objects.remove(bpy.data.objects["Cube"], do_unlink=True)


def count_colours() -> int:
    """Return the number of colours of the drawn materials; a texture or vertex colours count as `TEXTURE_COLOURS`."""
    colours: set[tuple[object, ...]] = set()
    for material in drawn_materials():
        nodes = material.node_tree.nodes if material and material.node_tree else ()
        if any(node.bl_idname in TEXTURE_NODES for node in nodes):
            return TEXTURE_COLOURS
        sockets = [node.inputs[name] for node in nodes for name in COLOUR_SOCKETS if name in node.inputs]
        plain = tuple(material.diffuse_color) if material else None
        colours.add(tuple(tuple(socket.default_value) for socket in sockets) or (plain,))
    return len(colours)


def prepare(settings: RenderSettings, light: Light, threads: int) -> None:
    """Set lights, render engine and colour management."""
    lighting.place(light)
    scene = bpy.context.scene
    scene.camera = bpy.data.objects["Camera"]  # not a camera of the asset
    scene.camera.data.lens, scene.camera.data.sensor_width = LENS_MM, SENSOR_MM
    scene.render.engine = "CYCLES"
    scene.render.resolution_x = scene.render.resolution_y = settings.resolution
    scene.render.resolution_percentage = 100
    scene.render.film_transparent = True
    scene.render.use_persistent_data = True  # keeps the BVH between cameras
    scene.render.threads_mode, scene.render.threads = "FIXED", threads
    scene.render.image_settings.file_format = "PNG"
    scene.render.image_settings.color_mode = "RGBA"
    scene.render.image_settings.color_depth = "8"
    scene.render.image_settings.compression = 0
    scene.render.dither_intensity = 0
    # The released data came from Blender 3.2, whose default view transform is Filmic; that of 4.5 is AgX.
    scene.display_settings.display_device = "sRGB"
    scene.view_settings.view_transform = settings.view_transform
    scene.view_settings.look = "None"
    scene.view_settings.exposure, scene.view_settings.gamma = 0, 1

    cycles = scene.cycles
    cycles.samples = settings.samples
    cycles.use_adaptive_sampling = settings.noise > 0
    cycles.adaptive_threshold, cycles.adaptive_min_samples = settings.noise, settings.min_samples
    cycles.use_denoising = settings.denoise != "none"
    # Most of the accurate denoiser's time goes into filtering albedo and normals, its guides.
    accurate = settings.denoise == "accurate"
    cycles.denoising_prefilter = "ACCURATE" if accurate else "NONE"
    cycles.denoising_quality = "HIGH" if accurate else "BALANCED"
    cycles.pixel_filter_type = settings.pixel_filter
    cycles.filter_width = settings.filter_width
    cycles.diffuse_bounces = cycles.glossy_bounces = 1
    cycles.transmission_bounces = 3
    cycles.transparent_max_bounces = settings.transparent_bounces
    # A light tree helps with many lamps. Blender 3.2 had none, and with few lamps it costs a fifth of the time.
    cycles.use_light_tree = False


def use_device(device: str) -> str:
    """Select the device of Cycles.

    Args:
        device: cpu, cuda, optix, or auto.

    Returns:
        The selected device: cpu, cuda or optix.

    Raises:
        NoDevice: `device` is a GPU and Cycles finds none of its kind.
    """
    preferences = bpy.context.preferences.addons["cycles"].preferences
    for kind in {"cpu": (), "auto": ("OPTIX", "CUDA")}.get(device, (device.upper(),)):
        preferences.compute_device_type = kind
        preferences.refresh_devices()
        gpus = [candidate for candidate in preferences.devices if candidate.type == kind]
        for candidate in preferences.devices:
            candidate.use = candidate in gpus
        if gpus:
            bpy.context.scene.cycles.device = "GPU"
            return kind.lower()
    if device not in ("cpu", "auto"):
        raise NoDevice(f"Cycles finds no such GPU on {platform.node()}; use cpu or auto")
    bpy.context.scene.cycles.device = "CPU"
    return "cpu"


def render(extrinsics: NDArray[np.float64], seed: int, path: Path, points: NDArray[np.float64] | None) -> None:
    """Render one view as an RGBA PNG with straight alpha.

    Args:
        extrinsics: World→camera `[3, 4]`.
        seed: Seed of the noise.
        path: The PNG.
        points: Vertices `[N, 3]` of the object in the world: only the rectangle around them is sampled. None: all.
    """
    pose = np.eye(4)
    pose[:3, :3] = extrinsics[:, :3].T
    pose[:3, 3] = -extrinsics[:, :3].T @ extrinsics[:, 3]
    scene = bpy.context.scene
    scene.camera.matrix_world = Matrix(pose.tolist())
    scene.cycles.seed = seed
    scene.render.use_border = points is not None
    if points is not None:
        margin = math.ceil(scene.cycles.filter_width)  # pixels: the filter blurs the edge over half of its width
        _crop(scene.render, project(points, extrinsics, scene.render.resolution_x), margin)
    scene.render.filepath = str(path)
    bpy.ops.render.render(write_still=True)


def _crop(settings: bpy.types.RenderSettings, pixels: NDArray[np.float64], margin: int) -> None:
    """Restrict the render to the rectangle of `pixels` `[N, 2]` (column, row), `margin` pixels larger on each side."""
    side = settings.resolution_x
    left, top = np.clip(np.floor(pixels.min(axis=0)) - margin, 0, side - 1) / side
    right, bottom = np.clip(np.ceil(pixels.max(axis=0)) + margin, 1, side) / side
    settings.border_min_x, settings.border_max_x = left, right
    settings.border_min_y, settings.border_max_y = 1 - bottom, 1 - top  # Blender's rows go up
