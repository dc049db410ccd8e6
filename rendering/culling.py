# SPDX-License-Identifier: GPL-3.0-or-later
"""Back-face culling of glTF materials that are not `doubleSided`.

Blender's glTF importer sets `use_backface_culling`, which Cycles ignores. So the nodes of these materials are changed:

    camera rays   pass through back faces
    other rays    (light, shadow, reflection) hit both sides, except of parts that are turned inside out

A part that is turned inside out, such as the hull of a toon outline or a room that is viewed from outside, shows the
camera its far side only. If it stopped light, everything inside it would be dark.
"""

import bpy
import numpy as np

from rendering import faces
from rendering.geometry import drawn_objects, polygons_of

INWARD_ATTRIBUTE = "turned_inside_out"  # of the faces
NODE_NAME = "back-face culling"


def cull() -> None:
    """Show the single-sided materials of the drawn objects from their front only."""
    has_inward_parts: dict[bpy.types.Material, bool] = {}
    marked: set[bpy.types.Mesh] = set()
    for obj, _ in list(drawn_objects()):
        source = obj.original.data
        single = [slot.material.original for slot in obj.material_slots if _is_single(slot.material)]
        if single and source not in marked:
            marked.add(source)
            inward = _mark_inward(obj.data, source)
            has_inward_parts |= {material: inward or has_inward_parts.get(material, False) for material in single}
    for material, inward in has_inward_parts.items():
        _cull(material, inward)


def _is_single(material: bpy.types.Material | None) -> bool:
    return bool(material and material.use_backface_culling and material.use_nodes)


def _mark_inward(evaluated: bpy.types.Mesh, source: bpy.types.Mesh) -> bool:
    """Mark the faces of `source` whose part is turned inside out in the pose of `evaluated`; return whether any is."""
    if not len(source.polygons) or len(evaluated.polygons) != len(source.polygons):
        return False
    shape = polygons_of(evaluated)
    inward = faces.inward(shape.points, shape.corners, shape.starts)
    if inward.any():
        attribute = source.attributes.new(INWARD_ATTRIBUTE, "FLOAT", "FACE")
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
    camera_mix = nodes.new("ShaderNodeMix")
    links.new(rays.outputs["Is Camera Ray"], camera_mix.inputs["Factor"])
    links.new(geometry.outputs["Backfacing"], camera_mix.inputs["B"])
    if inward:
        attribute = nodes.new("ShaderNodeAttribute")
        attribute.attribute_name = INWARD_ATTRIBUTE
        links.new(attribute.outputs["Fac"], camera_mix.inputs["A"])
    else:
        camera_mix.inputs["A"].default_value = 0.0
    mix = nodes.new("ShaderNodeMixShader")
    mix.name = NODE_NAME
    links.new(camera_mix.outputs["Result"], mix.inputs["Fac"])
    links.new(surface, mix.inputs[1])
    links.new(nodes.new("ShaderNodeBsdfTransparent").outputs[0], mix.inputs[2])
    links.new(mix.outputs[0], output.inputs["Surface"])
