# SPDX-License-Identifier: GPL-3.0-or-later
"""Separate coincident faces, with which game assets model surfaces that are visible from both sides.

A ray meets coincident faces in arbitrary order, and each shadows the other: the image is black or shows either colour.
They are moved apart by much less than a pixel, so that each side shows the face that is turned to it.
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import bmesh
import bpy
import numpy as np
from numpy.typing import NDArray

from rendering import faces
from rendering.geometry import Polygons, drawn_objects, polygons_of

GAP = 1e-4  # object sizes between faces of opposite orientation, about a hundredth of a pixel at 256²
MAX_CORNERS = 20_000_000  # of all faces; larger objects stay unchanged, to save memory
SAVED_NORMALS = "normals before splitting"  # attribute of the corners


@dataclass(frozen=True)
class _Part:
    """A drawn object with its modifiers applied, and the mesh that it was evaluated from."""

    shape: Polygons
    source: bpy.types.Mesh
    scale: float
    points: NDArray[np.float64]  # [V, 3] in the world


def separate() -> None:
    """Move coincident faces of the normalised object apart, by at most `GAP`."""
    _hide_repeated_objects()
    parts, overlaps = _find_overlaps()
    tied = {part.source for part, overlap in zip(parts, overlaps, strict=True) if _share_vertices(part.shape, overlap)}
    if tied:
        for part, overlap in zip(parts, overlaps, strict=True):
            if part.source in tied:
                _split(part.source, np.flatnonzero(overlap.later))
                tied.remove(part.source)  # another object with this mesh needs no second split
        bpy.context.view_layer.update()
        parts, overlaps = _find_overlaps()
    moved = set()
    for part, overlap in zip(parts, overlaps, strict=True):
        # Forwards if a face of opposite orientation is there, backwards behind the first face of equal orientation.
        distance = (0.5 * overlap.reversed - 0.25 * overlap.repeated) * GAP / part.scale
        if distance.any() and part.source not in moved:
            moved.add(part.source)
            _move(part.source, distance, overlap.layer)


def _find_overlaps() -> tuple[list[_Part], list[faces.Overlaps]]:
    """Return the drawn objects that can be edited, and which of their faces lie on faces of any of these objects."""
    parts = list(_parts())
    if not parts or sum(len(part.shape.corners) for part in parts) > MAX_CORNERS:
        return [], []
    sizes = [(len(part.points), len(part.shape.corners), len(part.shape.starts)) for part in parts]
    vertex, corner, face = np.cumsum([(0, 0, 0), *sizes], axis=0).T
    overlaps = faces.overlaps(
        np.concatenate([part.points for part in parts]),
        np.concatenate([part.shape.corners + start for part, start in zip(parts, vertex, strict=False)]),
        np.concatenate([part.shape.starts + start for part, start in zip(parts, corner, strict=False)]),
    )
    ranges = [slice(*bounds) for bounds in itertools.pairwise(face)]
    return parts, [faces.Overlaps(*(flags[part] for flags in vars(overlaps).values())) for part in ranges]


def _parts() -> Iterator[_Part]:
    """Yield the drawn objects that can be edited: those whose modifiers keep the number of faces and vertices."""
    for obj, world in drawn_objects():
        mesh, source = obj.data, obj.original.data
        kinds = ("vertices", "loops", "polygons")
        if len(mesh.polygons) and all(len(getattr(mesh, kind)) == len(getattr(source, kind)) for kind in kinds):
            shape, scale = polygons_of(mesh), abs(np.linalg.det(world[:3, :3])) ** (1 / 3)
            if scale > 0:
                yield _Part(shape, source, scale, shape.points @ world[:3, :3].T + world[:3, 3])


def _hide_repeated_objects() -> None:
    """Hide an object that draws the same mesh in the same place as another."""
    keys: set[tuple[str, bytes]] = set()
    repeated = []
    for obj, world in drawn_objects():
        key = obj.original.data.name_full, world.tobytes()
        if key in keys and obj.original.name in bpy.context.view_layer.objects and not obj.modifiers:
            repeated.append(obj.original)
        keys.add(key)
    for obj in repeated:
        obj.hide_render = obj.hide_viewport = True
    if repeated:
        bpy.context.view_layer.update()


def _share_vertices(shape: Polygons, overlap: faces.Overlaps) -> bool:
    """Return whether coincident faces share a vertex, so that they cannot be moved apart."""
    if not overlap.later.any():
        return False
    owner = np.repeat(np.arange(len(shape.starts)), np.diff(np.r_[shape.starts, len(shape.corners)]))
    used = np.zeros((2, len(shape.points)), dtype=bool)
    for side, chosen in enumerate((overlap.later, overlap.any & ~overlap.later)):
        used[side, shape.corners[chosen[owner]]] = True
    return bool(used.all(axis=0).any())


def _split(mesh: bpy.types.Mesh, chosen: NDArray[np.int64]) -> None:
    """Give the `chosen` faces separate vertices, and keep the normal of every corner."""
    if custom := mesh.has_custom_normals:
        normals = np.empty(len(mesh.loops) * 3, dtype=np.float32)
        mesh.corner_normals.foreach_get("vector", normals)
        mesh.attributes.new(SAVED_NORMALS, "FLOAT_VECTOR", "CORNER").data.foreach_set("vector", normals)
    edit = bmesh.new()
    edit.from_mesh(mesh)
    edit.faces.ensure_lookup_table()
    bmesh.ops.split(edit, geom=[edit.faces[number] for number in chosen.tolist()])
    edit.to_mesh(mesh)
    edit.free()
    if custom:
        mesh.attributes[SAVED_NORMALS].data.foreach_get("vector", normals)
        mesh.attributes.remove(mesh.attributes[SAVED_NORMALS])
        mesh.normals_split_custom_set(normals.reshape(-1, 3))


def _move(mesh: bpy.types.Mesh, distance: NDArray[np.float64], layer: NDArray[np.int64]) -> None:
    """Move the faces of `mesh` along their normals in the rest pose, by `distance` `[F]` in units of the mesh."""
    shape = polygons_of(mesh)
    finest = 4 * np.spacing(np.abs(shape.points).max().astype(np.float32))
    distance = np.sign(distance) * np.maximum(np.abs(distance), np.where(distance == 0, 0, finest))
    shifts = faces.vertex_shifts(shape.points, shape.corners, shape.starts, distance, layer)
    keys = mesh.shape_keys.key_blocks if mesh.shape_keys else ()
    for vertices in (mesh.vertices, *(key.data for key in keys)):
        places = np.empty(shifts.size, dtype=np.float32)
        vertices.foreach_get("co", places)
        vertices.foreach_set("co", places + shifts.ravel().astype(np.float32))
    mesh.update()


@contextmanager
def kept_by_gltf_import() -> Iterator[None]:
    """Let Blender's glTF importer keep both of two triangles with equal vertices and opposite winding.

    Without it, the importer merges their vertices, if their normals agree or are absent, and then drops one of them.
    """
    from io_scene_gltf2.blender.imp import mesh as importer

    original = importer.merge_duplicate_verts
    importer.merge_duplicate_verts = lambda *arrays: _split_reversed(*original(*arrays))
    try:
        yield
    finally:
        importer.merge_duplicate_verts = original


def _split_reversed(
    points: Any, normals: Any, joints: Any, weights: Any, keys: Any, corners: Any, edges: Any, attributes: Any
) -> tuple[Any, ...]:
    """Split the importer's arrays: `corners` and `edges` hold indices of vertices, all others one row per vertex."""
    if not len(corners):
        return points, normals, joints, weights, keys, corners, edges, attributes
    triangles, sources = faces.split_reversed(corners.reshape(-1, 3).astype(np.int64), len(points))

    def extended(array: Any) -> Any:
        return np.concatenate([array, array[sources]])

    points = extended(points)
    if len(normals) and len(sources):
        normals = extended(normals)
        own = faces.vertex_normals(points.astype(np.float64), triangles)[-len(sources) :]
        away = (own * normals[-len(sources) :]).sum(axis=1) < -0.5  # the normals of the front
        normals[-len(sources) :][away] *= -1
    by_vertex = [[extended(array) for array in arrays] for arrays in (joints, weights, keys, attributes)]
    joints, weights, keys, attributes = by_vertex
    return points, normals, joints, weights, keys, triangles.ravel().astype(corners.dtype), edges, attributes
