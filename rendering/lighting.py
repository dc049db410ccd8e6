# SPDX-License-Identifier: GPL-3.0-or-later
"""Lamps and world of Blender's scene."""

import math

import bpy
from mathutils import Vector

from rendering.cameras import spherical_to_cartesian
from rendering.settings import AreaLight

# azimuth and elevation in degrees, power in watts; around the side that faces -y, the front of a glTF
THREE_POINT_LAMPS = {"key": (-45.0, 40.0, 120.0), "fill": (-140.0, 15.0, 40.0), "rim": (90.0, 45.0, 80.0)}
LAMP_DISTANCE = 2.0  # object sizes


def place(lighting: str, light: AreaLight) -> None:
    """Light the scene.

    Args:
        lighting: `zero123`, `uniform` or `three_point`.
        light: The area light of the object, used by `zero123` only.
    """
    match lighting:
        case "zero123":  # beside the factory scene's point lamp (1000 W) and its grey world
            bpy.ops.object.light_add(type="AREA", location=light.location)
            area = bpy.context.object
            area.data.energy = light.power
            area.scale = (100, 100, 100)
        case "uniform":
            _use_world(1.0)
        case "three_point":
            _use_world(0.05)
            for name, (azimuth, elevation, power) in THREE_POINT_LAMPS.items():
                _add_lamp(name, azimuth, elevation, power)
        case _:
            raise AssertionError(lighting)


def _use_world(grey: float) -> None:
    """Remove the factory lamp and give the world a uniform scene-linear `grey`."""
    if lamp := bpy.data.objects.get("Light"):
        bpy.data.objects.remove(lamp, do_unlink=True)
    bpy.context.scene.world.node_tree.nodes["Background"].inputs["Color"].default_value = (grey, grey, grey, 1)


def _add_lamp(name: str, azimuth: float, elevation: float, power: float) -> None:
    """Add a square lamp of one object size, `LAMP_DISTANCE` from the origin and directed at it.

    Angles are in degrees, the power in watts.
    """
    centre = spherical_to_cartesian(math.radians(90 - elevation), math.radians(azimuth), LAMP_DISTANCE)
    lamp = bpy.data.objects.new(name, bpy.data.lights.new(name, "AREA"))
    lamp.data.energy, lamp.data.size = power, 1.0
    lamp.location = centre
    lamp.rotation_euler = Vector(-centre).to_track_quat("-Z", "Y").to_euler()
    bpy.context.scene.collection.objects.link(lamp)
