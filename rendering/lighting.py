# SPDX-License-Identifier: GPL-3.0-or-later
"""Lamps and world of the settings, in the scene that Blender holds; the factory scene has a lamp and a grey world."""

import math

import bpy
from mathutils import Vector

from rendering.cameras import spherical_to_cartesian
from rendering.settings import AreaLight

# azimuth and elevation in degrees, watts; two object sizes away, around the side that faces -y (a glTF's front)
THREE_POINT = {"key": (-45.0, 40.0, 120.0), "fill": (-140.0, 15.0, 40.0), "rim": (90.0, 45.0, 80.0)}


def place(lighting: str, light: AreaLight) -> None:
    """Light the scene by the settings' `lighting`; `light` is the object's own, of which `zero123` alone makes use."""
    match lighting:
        case "zero123":  # beside the factory scene's point lamp (1000 W) and its grey world
            bpy.ops.object.light_add(type="AREA", location=light.location)
            area = bpy.context.object
            area.data.energy = light.power
            area.scale = (100, 100, 100)
        case "uniform":
            _world(1.0)
        case "three_point":
            _world(0.05)
            for name, (azimuth, elevation, power) in THREE_POINT.items():
                _lamp(name, azimuth, elevation, power)
        case _:
            raise AssertionError(lighting)


def _world(grey: float) -> None:
    """No lamp, and a world of one grey, scene-linear."""
    if lamp := bpy.data.objects.get("Light"):
        bpy.data.objects.remove(lamp, do_unlink=True)
    bpy.context.scene.world.node_tree.nodes["Background"].inputs["Color"].default_value = (grey, grey, grey, 1)


def _lamp(name: str, azimuth: float, elevation: float, power: float) -> None:
    """A square of one object size that looks at the origin; angles in degrees, power in watts."""
    place = spherical_to_cartesian(math.radians(90 - elevation), math.radians(azimuth), 2.0)
    lamp = bpy.data.objects.new(name, bpy.data.lights.new(name, "AREA"))
    lamp.data.energy, lamp.data.size = power, 1.0
    lamp.location = place
    lamp.rotation_euler = Vector(-place).to_track_quat("-Z", "Y").to_euler()
    bpy.context.scene.collection.objects.link(lamp)
