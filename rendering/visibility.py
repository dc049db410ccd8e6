# SPDX-License-Identifier: GPL-3.0-or-later
"""Hide what a file marks as hidden, for the render as well as for every measurement of the scene."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import bpy

DRAWN = {"MESH", "ARMATURE", "EMPTY"}
GLTF_ADDON = "io_scene_gltf2"
NODE_VISIBILITY = "KHR_node_visibility"


def hide_parts(objects: Iterable[bpy.types.Object]) -> None:
    """Hide what is no mesh and carries none, what the file hides, and the descendants of what the file hides.

    Blender's importers mark hidden parts as invisible in the viewport alone (FBX `Visibility`). A hidden armature does
    not hide the meshes that it deforms: skeletons are hidden in most rigs.
    """
    objects = list(objects)
    hidden = [part for part in objects if any(_hides(ancestor) for ancestor in _ancestors(part)) or part.hide_viewport]
    hidden += [part for part in objects if part.type not in DRAWN and not _instances(part)]
    for part in hidden:  # after all are found: an armature or a lamp that is hidden keeps its children
        part.hide_render = part.hide_viewport = True


def _hides(ancestor: bpy.types.Object) -> bool:
    return ancestor.hide_viewport and ancestor.type != "ARMATURE"


def _ancestors(part: bpy.types.Object) -> Iterator[bpy.types.Object]:
    while part := part.parent:
        yield part


def _instances(part: bpy.types.Object) -> bool:
    """Return whether geometry nodes place other objects at the points of `part` (a USD PointInstancer)."""
    return part.type == "POINTCLOUD" and any(modifier.type == "NODES" for modifier in part.modifiers)


@contextmanager
def gltf_node_visibility() -> Iterator[None]:
    """Let Blender's glTF importer read KHR_node_visibility, through its interface for user extensions."""
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
