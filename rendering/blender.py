# SPDX-License-Identifier: GPL-3.0-or-later
"""The only file that drives Blender to make views: reset, normalise, light, render.

Everything happens in the one scene that `bpy` holds, so a process renders one object at a time.
"""

import platform
from pathlib import Path

import bpy
import numpy as np
from mathutils import Matrix
from numpy.typing import NDArray

from rendering import lighting
from rendering.cameras import LENS_MM, SENSOR_MM, project
from rendering.materials import drawn_materials
from rendering.settings import AreaLight, RenderSettings

VERSION = bpy.app.version_string
MANY = 1000  # colours
TINTED = ("Base Color", "Color", "Emission Color")
PAINTED = {"ShaderNodeTexImage", "ShaderNodeVertexColor", "ShaderNodeAttribute"}


class NoDevice(Exception):
    """The machine cannot do what the run asks for. The message is a sentence."""


def reset() -> None:
    """Back to the factory scene, without its cube: nothing of the object before remains.

    What stays of the factory scene is part of the settings: its point light (1000 W) and its grey world.
    """
    bpy.ops.wm.read_factory_settings(use_empty=False)
    bpy.data.objects.remove(bpy.data.objects["Cube"], do_unlink=True)


def count_colours() -> int:
    """Count the colours of the materials of what is drawn; a texture or varying vertex colours count as many."""
    found: set[tuple[object, ...]] = set()
    for material in drawn_materials():
        nodes = material.node_tree.nodes if material and material.node_tree else ()
        if any(node.bl_idname in PAINTED for node in nodes):
            return MANY
        sockets = [node.inputs[name] for node in nodes for name in TINTED if name in node.inputs]
        plain = tuple(material.diffuse_color) if material else None
        found.add(tuple(tuple(socket.default_value) for socket in sockets) or (plain,))
    return len(found)


def prepare(settings: RenderSettings, light: AreaLight, threads: int) -> None:
    """Lights, engine and colour management of the settings."""
    lighting.place(settings.lighting, light)
    scene = bpy.context.scene
    scene.camera = bpy.data.objects["Camera"]  # whatever camera an asset brought along
    scene.camera.data.lens, scene.camera.data.sensor_width = LENS_MM, SENSOR_MM
    scene.render.engine = "CYCLES"
    scene.render.resolution_x = scene.render.resolution_y = settings.resolution
    scene.render.resolution_percentage = 100
    scene.render.film_transparent = True
    scene.render.use_persistent_data = True  # keeps the scene's BVH from one camera to the next
    scene.render.threads_mode, scene.render.threads = "FIXED", threads
    scene.render.image_settings.file_format = "PNG"
    scene.render.image_settings.color_mode = "RGBA"
    scene.render.image_settings.color_depth = "8"
    scene.render.image_settings.compression = 0
    scene.render.dither_intensity = 0
    # The released data came from Blender 3.2, whose default view transform is Filmic; 4.5 would take AgX.
    scene.display_settings.display_device = "sRGB"
    scene.view_settings.view_transform = settings.view_transform
    scene.view_settings.look = "None"
    scene.view_settings.exposure, scene.view_settings.gamma = 0, 1

    cycles = scene.cycles
    cycles.samples = settings.samples
    cycles.use_adaptive_sampling = settings.noise > 0
    cycles.adaptive_threshold, cycles.adaptive_min_samples = settings.noise, settings.min_samples
    cycles.use_denoising = settings.denoise != "none"
    # Of the accurate one's time, most goes into filtering its own guides, the albedo and the normals.
    accurate = settings.denoise == "accurate"
    cycles.denoising_prefilter = "ACCURATE" if accurate else "NONE"
    cycles.denoising_quality = "HIGH" if accurate else "BALANCED"
    cycles.pixel_filter_type = settings.pixel_filter
    cycles.filter_width = settings.filter_width
    cycles.diffuse_bounces = cycles.glossy_bounces = 1
    cycles.transmission_bounces = 3
    cycles.transparent_max_bounces = settings.transparent_bounces
    # A tree pays for many lamps; the original's Blender 3.2 had none, and here it costs a fifth of the time.
    cycles.use_light_tree = False


def use_device(device: str) -> str:
    """Let Cycles render on `device` (of `RenderSettings`); returns the one that it got: cpu, cuda or optix.

    Raises:
        NoDevice: a GPU is asked for and there is none that Cycles can use.
    """
    preferences = bpy.context.preferences.addons["cycles"].preferences
    for kind in {"cpu": (), "auto": ("OPTIX", "CUDA")}.get(device, (device.upper(),)):
        preferences.compute_device_type = kind
        preferences.refresh_devices()
        gpus = [found for found in preferences.devices if found.type == kind]
        for found in preferences.devices:
            found.use = found in gpus
        if gpus:
            bpy.context.scene.cycles.device = "GPU"
            return kind.lower()
    if device not in ("cpu", "auto"):
        raise NoDevice(f"Cycles finds no such GPU on {platform.node()}; use cpu or auto")
    bpy.context.scene.cycles.device = "CPU"
    return "cpu"


def render(extrinsics: NDArray[np.float64], seed: int, path: Path, points: NDArray[np.float64] | None) -> None:
    """Render one view, `[3, 4]` world→camera, as an RGBA PNG with straight alpha.

    Only the rectangle around `points` `[N, 3]`, where they are given, is sampled; there is nothing elsewhere.
    """
    pose = np.eye(4)
    pose[:3, :3] = extrinsics[:, :3].T
    pose[:3, 3] = -extrinsics[:, :3].T @ extrinsics[:, 3]
    scene = bpy.context.scene
    scene.camera.matrix_world = Matrix(pose.tolist())
    scene.cycles.seed = seed
    scene.render.use_border = points is not None
    if points is not None:
        _crop(scene.render, project(points, extrinsics, scene.render.resolution_x))
    scene.render.filepath = str(path)
    bpy.ops.render.render(write_still=True)


def _crop(settings: bpy.types.RenderSettings, pixels: NDArray[np.float64]) -> None:
    """Bound the rendering to `pixels` `[N, 2]` (column, row) and one more to each side."""
    side = settings.resolution_x
    left, top = np.clip(np.floor(pixels.min(axis=0)) - 1, 0, side - 1) / side
    right, bottom = np.clip(np.ceil(pixels.max(axis=0)) + 1, 1, side) / side
    settings.border_min_x, settings.border_max_x = left, right
    settings.border_min_y, settings.border_max_y = 1 - bottom, 1 - top  # Blender's rows go up
