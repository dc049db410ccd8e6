# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring a stranger's file into Blender's scene: its meshes as they are posed at frame 1, and nothing else.

What a file declares is checked before Blender opens it (`rendering.guard`); what it draws with, after.
"""

from pathlib import Path

import bpy

from rendering.failure import RenderFailure


def import_asset(path: Path) -> None:
    """Import a file into the scene by its suffix. Lights that it brings along do not shine.

    Raises:
        RenderFailure: `unreadable` if Blender cannot read it, `no_mesh` if it draws nothing.
    """
    ours = set(bpy.data.objects)
    try:
        match path.suffix.lower():
            case ".glb" | ".gltf":
                bpy.ops.import_scene.gltf(filepath=str(path), merge_vertices=True)
            case ".obj":
                bpy.ops.wm.obj_import(filepath=str(path))
            case ".fbx":
                bpy.ops.import_scene.fbx(filepath=str(path))
            case ".ply":
                bpy.ops.wm.ply_import(filepath=str(path))
            case ".stl":
                bpy.ops.wm.stl_import(filepath=str(path))
            case ".usd" | ".usda" | ".usdc" | ".usdz":
                bpy.ops.wm.usd_import(filepath=str(path), import_cameras=False, import_lights=False)
            case suffix:
                raise RenderFailure("unreadable", f"{suffix or 'a file without suffix'} is no supported format")
    except RuntimeError as error:  # what operators raise when an importer reports an error or breaks
        raise RenderFailure("unreadable", _last_line(error)) from error
    for extra in set(bpy.data.objects) - ours:
        extra.hide_render |= extra.type in {"LIGHT", "LIGHT_PROBE"}  # removed, it would let go of its children
    shown = bpy.context.evaluated_depsgraph_get().object_instances
    if not any(instance.object.type == "MESH" and instance.object.data.polygons for instance in shown):
        raise RenderFailure("no_mesh", "the file holds no mesh with faces")


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
