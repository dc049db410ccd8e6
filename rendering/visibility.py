# SPDX-License-Identifier: GPL-3.0-or-later
"""Hide objects that the file hides, in the render and in measurements of the scene."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import bpy

DRAWN_TYPES = {"MESH", "ARMATURE", "EMPTY"}
GLTF_ADDON = "io_scene_gltf2"
NODE_VISIBILITY = "KHR_node_visibility"


def hide_parts(objects: Iterable[bpy.types.Object]) -> None:
    """Hide objects that are neither meshes nor parents of meshes, objects that the file hides, and their descendants.

    Blender's importers hide parts in the viewport only (FBX `Visibility`). A hidden armature does not hide the meshes
    that it deforms: most rigs hide their skeleton.
    """
    objects = list(objects)
    hidden = [
        part
        for part in objects
        if any(_hides_children(ancestor) for ancestor in _ancestors(part)) or part.hide_viewport
    ]
    hidden += [part for part in objects if part.type not in DRAWN_TYPES and not _instances(part)]
    for part in hidden:  # last, so that a hidden armature or lamp keeps its children
        part.hide_render = part.hide_viewport = True


def _hides_children(ancestor: bpy.types.Object) -> bool:
    return ancestor.hide_viewport and ancestor.type != "ARMATURE"


def _ancestors(part: bpy.types.Object) -> Iterator[bpy.types.Object]:
    while part := part.parent:
        yield part


def _instances(part: bpy.types.Object) -> bool:
    """Return whether geometry nodes place other objects at the points of `part` (a USD PointInstancer)."""
    return part.type == "POINTCLOUD" and any(modifier.type == "NODES" for modifier in part.modifiers)


@contextmanager
def gltf_node_visibility() -> Iterator[None]:
    """Let Blender's glTF importer apply KHR_node_visibility, through its interface for user extensions."""
    addon: Any = sys.modules[GLTF_ADDON]
    addon.glTF2ImportUserExtension = _NodeVisibility
    try:
        yield
    finally:
        del addon.glTF2ImportUserExtension


class _NodeVisibility:
    def __init__(self) -> None:
        from io_scene_gltf2.io.com.gltf2_io_extensions import Extension

        self.extensions = [Extension(name=NODE_VISIBILITY, extension={}, required=True)]

    def gather_import_node_after_hook(self, vnode: Any, gltf_node: Any, part: bpy.types.Object, gltf: Any) -> None:
        extensions = (gltf_node and gltf_node.extensions) or {}
        if extensions.get(NODE_VISIBILITY, {}).get("visible", True) is False:
            part.hide_viewport = True
