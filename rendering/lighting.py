# SPDX-License-Identifier: GPL-3.0-or-later
"""Lamps and world of Blender's scene."""

import math

import bpy
from mathutils import Vector

from rendering.cameras import spherical_to_cartesian
from rendering.lights import Lamp, Light

LAMP_DISTANCE = 2.0  # object sizes


def place(light: Light) -> None:
    """Light the scene."""
    if light.world is None:  # beside the factory scene's point lamp (1000 W) and its grey world
        bpy.ops.object.light_add(type="AREA", location=light.area.location)
        area = bpy.context.object
        area.data.energy = light.area.power
        area.scale = (100, 100, 100)
        return
    _use_world(light.world)
    for lamp in light.lamps:
        _add_lamp(lamp)


def _use_world(grey: float) -> None:
    """Remove the factory lamp and give the world a uniform scene-linear `grey`."""
    if lamp := bpy.data.objects.get("Light"):
        bpy.data.objects.remove(lamp, do_unlink=True)
    bpy.context.scene.world.node_tree.nodes["Background"].inputs["Color"].default_value = (grey, grey, grey, 1)


def _add_lamp(lamp: Lamp) -> None:
    """Add a square lamp of one object size, `LAMP_DISTANCE` from the origin and directed at it."""
    centre = spherical_to_cartesian(math.radians(90 - lamp.elevation), math.radians(lamp.azimuth), LAMP_DISTANCE)
    added = bpy.data.objects.new("Lamp", bpy.data.lights.new("Lamp", "AREA"))
    added.data.energy, added.data.size = lamp.power, 1.0
    added.location = centre
    added.rotation_euler = Vector(-centre).to_track_quat("-Z", "Y").to_euler()
    bpy.context.scene.collection.objects.link(added)
