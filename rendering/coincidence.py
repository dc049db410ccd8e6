# SPDX-License-Identifier: GPL-3.0-or-later
"""Faces that lie in one place, as game kits have them for surfaces that are seen from both sides.

A ray meets such faces in an arbitrary order, and each shadows the other: the picture is black, or shows either colour.
Copies are moved apart by a distance that no picture shows, so that from either side the copy that faces it is drawn.
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

GAP = 1e-4  # object sizes between copies that face opposite ways, about a hundredth of a pixel at 256²
MAX_CORNERS = 20_000_000  # of all faces; a heavier object is left as it is, to save memory
SAVED = "normals before splitting"


@dataclass(frozen=True)
class _Part:
    """An object as it is drawn, and the mesh that it was evaluated from."""

    shape: Polygons
    source: bpy.types.Mesh
    scale: float
    points: NDArray[np.float64]  # [V, 3] in the world


def separate() -> None:
    """Move coincident faces of the normalised object apart, by at most `GAP`."""
    _hide_repeated_objects()
    parts, found = _find_overlaps()
    tied = {part.source for part, overlaps in zip(parts, found, strict=True) if _share_vertices(part.shape, overlaps)}
    if tied:
        for part, overlaps in zip(parts, found, strict=True):
            if part.source in tied:
                _split(part.source, np.flatnonzero(overlaps.later))
                tied.remove(part.source)  # of an object that shares its mesh, nothing is left to do
        bpy.context.view_layer.update()
        parts, found = _find_overlaps()
    moved = set()
    for part, overlaps in zip(parts, found, strict=True):
        # Forwards if another face looks the other way; behind the first of those that look the same way.
        distance = (0.5 * overlaps.reversed - 0.25 * overlaps.repeated) * GAP / part.scale
        if distance.any() and part.source not in moved:
            moved.add(part.source)
            _move(part.source, distance, overlaps.layer)


def _find_overlaps() -> tuple[list[_Part], list[faces.Overlaps]]:
    """Return the drawn objects that can be edited, and which of their faces lie on others, be it of another object."""
    parts = list(_parts())
    if not parts or sum(len(part.shape.corners) for part in parts) > MAX_CORNERS:
        return [], []
    sizes = [(len(part.points), len(part.shape.corners), len(part.shape.starts)) for part in parts]
    vertex, corner, face = np.cumsum([(0, 0, 0), *sizes], axis=0).T
    found = faces.overlaps(
        np.concatenate([part.points for part in parts]),
        np.concatenate([part.shape.corners + start for part, start in zip(parts, vertex, strict=False)]),
        np.concatenate([part.shape.starts + start for part, start in zip(parts, corner, strict=False)]),
    )
    ranges = [slice(*bounds) for bounds in itertools.pairwise(face)]
    return parts, [faces.Overlaps(*(flags[part] for flags in vars(found).values())) for part in ranges]


def _parts() -> Iterator[_Part]:
    """Yield the drawn objects whose modifiers, if any, keep faces and vertices: only those can be edited."""
    for thing, world in drawn_objects():
        mesh, source = thing.data, thing.original.data
        kinds = ("vertices", "loops", "polygons")
        if len(mesh.polygons) and all(len(getattr(mesh, kind)) == len(getattr(source, kind)) for kind in kinds):
            shape, scale = polygons_of(mesh), abs(np.linalg.det(world[:3, :3])) ** (1 / 3)
            if scale > 0:
                yield _Part(shape, source, scale, shape.points @ world[:3, :3].T + world[:3, 3])


def _hide_repeated_objects() -> None:
    """Hide an object that draws the same mesh in the same place as another."""
    seen: set[tuple[str, bytes]] = set()
    repeated = []
    for thing, world in drawn_objects():
        key = thing.original.data.name_full, world.tobytes()
        if key in seen and thing.original.name in bpy.context.view_layer.objects and not thing.modifiers:
            repeated.append(thing.original)
        seen.add(key)
    for thing in repeated:
        thing.hide_render = thing.hide_viewport = True
    if repeated:
        bpy.context.view_layer.update()


def _share_vertices(shape: Polygons, found: faces.Overlaps) -> bool:
    """Return whether faces that lie on each other have a vertex in common, so that they cannot move apart."""
    if not found.later.any():
        return False
    owner = np.repeat(np.arange(len(shape.starts)), np.diff(np.r_[shape.starts, len(shape.corners)]))
    used = np.zeros((2, len(shape.points)), dtype=bool)
    for side, chosen in enumerate((found.later, found.any & ~found.later)):
        used[side, shape.corners[chosen[owner]]] = True
    return bool(used.all(axis=0).any())


def _split(mesh: bpy.types.Mesh, chosen: NDArray[np.int64]) -> None:
    """Give the `chosen` faces vertices of their own, and every corner the normal that it had."""
    if custom := mesh.has_custom_normals:
        normals = np.empty(len(mesh.loops) * 3, dtype=np.float32)
        mesh.corner_normals.foreach_get("vector", normals)
        mesh.attributes.new(SAVED, "FLOAT_VECTOR", "CORNER").data.foreach_set("vector", normals)
    edit = bmesh.new()
    edit.from_mesh(mesh)
    edit.faces.ensure_lookup_table()
    bmesh.ops.split(edit, geom=[edit.faces[number] for number in chosen.tolist()])
    edit.to_mesh(mesh)
    edit.free()
    if custom:
        mesh.attributes[SAVED].data.foreach_get("vector", normals)
        mesh.attributes.remove(mesh.attributes[SAVED])
        mesh.normals_split_custom_set(normals.reshape(-1, 3))


def _move(mesh: bpy.types.Mesh, distance: NDArray[np.float64], layer: NDArray[np.int64]) -> None:
    """Move the faces of `mesh` along their normals in the rest pose, by `distance` `[F]` in the mesh's own units."""
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
    """Let Blender's glTF importer keep both of two triangles that are wound opposite ways around the same vertices.

    It gives them one set of vertices, if their normals agree or are absent, and then drops one, whichever it is.
    """
    from io_scene_gltf2.blender.imp import mesh as importer

    given = importer.merge_duplicate_verts
    importer.merge_duplicate_verts = lambda *arrays: _split_reversed(*given(*arrays))
    try:
        yield
    finally:
        importer.merge_duplicate_verts = given


def _split_reversed(
    points: Any, normals: Any, joints: Any, weights: Any, keys: Any, corners: Any, edges: Any, attributes: Any
) -> tuple[Any, ...]:
    """Split the importer's arrays. All are by vertex, except `corners` and `edges`, which are numbers of vertices."""
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
