# SPDX-License-Identifier: GPL-3.0-or-later
"""Add solids to the open Blender scene and write the scene as one GLB."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bpy
import numpy as np

from rendering.procedural.colours import Material
from rendering.procedural.shapes import Array, Solid, Vector, placed


def empty() -> None:
    """Open a blank file, so that earlier content has no influence on names, scenes or data."""
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)


def add(
    solid: Solid,
    material: Material,
    at: Vector = (0, 0, 0),
    turn: Vector = (0, 0, 0),
    size: Vector = (1, 1, 1),
    tile: tuple[float, float] = (1, 1),
) -> None:
    """Add a solid, transformed as by `placed`; its texture repeats `tile` times along u and v."""
    points, faces, uvs = placed(solid, at, turn, size)
    mesh = bpy.data.meshes.new("part")
    mesh.from_pydata(points.tolist(), [], faces)
    layer = mesh.uv_layers.new(name="uv")
    # Constant texture coordinates of a plain colour let the exporter share vertices between faces.
    used = uvs * tile if any(node.type == "TEX_IMAGE" for node in material.node_tree.nodes) else 0 * uvs
    layer.uv.foreach_set("vector", used.astype(np.float32).ravel())
    mesh.materials.append(material)
    normals = mesh.attributes.new("custom_normal", "FLOAT_VECTOR", "CORNER")
    normals.data.foreach_set("vector", np.round(corner_normals(points, faces), 4).astype(np.float32).ravel())
    bpy.context.scene.collection.objects.link(bpy.data.objects.new("part", mesh))


def both(solid: Solid, material: Material, at: Vector = (0, 0, 0), turn: Vector = (0, 0, 0), **options: Any) -> None:
    """Add a solid and its mirror image across the plane x = 0."""
    part = placed(solid, at, turn)
    add(part, material, **options)
    add(placed(part, size=(-1, 1, 1)), material, **options)


def corner_normals(points: Array, faces: Sequence[tuple[int, ...]], crease: float = 50.0) -> Array:
    """Return one unit normal for each face corner, smooth over edges that bend by less than `crease` degrees.

    Weighting by area keeps broad flat faces flat next to the narrow faces of a rounded edge.
    """
    sizes = np.fromiter(map(len, faces), int, len(faces))
    corners = np.concatenate(faces)
    owner = np.repeat(np.arange(len(faces)), sizes)
    first = np.cumsum(sizes) - sizes
    following = np.arange(1, len(corners) + 1)
    following[first + sizes - 1] = first
    areas = np.zeros((len(faces), 3))
    np.add.at(areas, owner, np.cross(points[corners], points[corners[following]]))
    units = areas / np.maximum(np.linalg.norm(areas, axis=1, keepdims=True), 1e-12)
    order = np.argsort(corners, kind="stable")
    counts = np.bincount(corners, minlength=len(points))
    starts = np.cumsum(counts) - counts
    # All pairs of corners at one point.
    one = np.repeat(np.arange(len(corners)), counts[corners])
    offset = np.arange(len(one)) - np.repeat(np.cumsum(counts[corners]) - counts[corners], counts[corners])
    other = order[starts[corners[one]] + offset]
    near = np.sum(units[owner[one]] * units[owner[other]], axis=1) > np.cos(np.radians(crease))
    normals = np.zeros((len(corners), 3))
    np.add.at(normals, one[near], areas[owner[other[near]]])
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


def export(path: Path) -> None:
    """Join all parts into one object and write it to `path` as GLB (y up in the file)."""
    parts = list(bpy.context.scene.objects)
    with bpy.context.temp_override(
        active_object=parts[0], object=parts[0], selected_objects=parts, selected_editable_objects=parts
    ):
        bpy.ops.object.join()
    bpy.ops.export_scene.gltf(
        filepath=str(path),
        export_format="GLB",
        export_yup=True,
        export_animations=False,
        export_skins=False,
        export_morph=False,
        export_cameras=False,
        export_lights=False,
        export_extras=False,
    )
