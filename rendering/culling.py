# SPDX-License-Identifier: GPL-3.0-or-later
"""Back-face culling: glTF materials that are not `doubleSided` show their front alone.

Blender's glTF importer marks them (`use_backface_culling`), which Cycles ignores, so it is built into their nodes:

    camera ray    passes through a back face
    other rays    (light, shadow, reflection) meet both sides, but no part that is turned inside out

A part that is turned inside out, as the hull of a toon outline or the walls of a room that is seen from outside, shows
its far side alone to the camera. Light that were stopped by it would leave all that it surrounds in the dark.
"""

import bpy
import numpy as np

from rendering import faces
from rendering.geometry import drawn_objects, polygons_of

INWARD = "turned_inside_out"  # attribute of the faces
NODE = "back-face culling"


def cull() -> None:
    """Let the drawn single-sided materials be seen from their front alone."""
    lets_light_in: dict[bpy.types.Material, bool] = {}
    done: set[bpy.types.Mesh] = set()
    for thing, _ in list(drawn_objects()):
        source = thing.original.data
        single = [slot.material.original for slot in thing.material_slots if _is_single(slot.material)]
        if single and source not in done:
            done.add(source)
            inward = _mark_inward(thing.data, source)
            lets_light_in |= {material: inward or lets_light_in.get(material, False) for material in single}
    for material, inward in lets_light_in.items():
        _cull(material, inward)


def _is_single(material: bpy.types.Material | None) -> bool:
    return bool(material and material.use_backface_culling and material.use_nodes)


def _mark_inward(evaluated: bpy.types.Mesh, source: bpy.types.Mesh) -> bool:
    """Mark the faces of `source` whose part is turned inside out, in the pose of `evaluated`; return whether any is."""
    if not len(source.polygons) or len(evaluated.polygons) != len(source.polygons):
        return False
    shape = polygons_of(evaluated)
    inward = faces.inward(shape.points, shape.corners, shape.starts)
    if inward.any():
        attribute = source.attributes.new(INWARD, "FLOAT", "FACE")
        attribute.data.foreach_set("value", inward.astype(np.float32))
    return bool(inward.any())


def _cull(material: bpy.types.Material, inward: bool) -> None:
    """Mix the surface of `material` with a transparent one."""
    nodes, links = material.node_tree.nodes, material.node_tree.links
    output = material.node_tree.get_output_node("CYCLES")
    if not (output and output.inputs["Surface"].is_linked):
        return
    surface = output.inputs["Surface"].links[0].from_socket
    rays, geometry = nodes.new("ShaderNodeLightPath"), nodes.new("ShaderNodeNewGeometry")
    seen_by_camera = nodes.new("ShaderNodeMix")
    links.new(rays.outputs["Is Camera Ray"], seen_by_camera.inputs["Factor"])
    links.new(geometry.outputs["Backfacing"], seen_by_camera.inputs["B"])
    if inward:
        attribute = nodes.new("ShaderNodeAttribute")
        attribute.attribute_name = INWARD
        links.new(attribute.outputs["Fac"], seen_by_camera.inputs["A"])
    else:
        seen_by_camera.inputs["A"].default_value = 0.0
    mix = nodes.new("ShaderNodeMixShader")
    mix.name = NODE
    links.new(seen_by_camera.outputs["Result"], mix.inputs["Fac"])
    links.new(surface, mix.inputs[1])
    links.new(nodes.new("ShaderNodeBsdfTransparent").outputs[0], mix.inputs[2])
    links.new(mix.outputs[0], output.inputs["Surface"])
