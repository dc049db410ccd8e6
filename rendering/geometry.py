# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure the meshes that a render shows, and bring them to unit size at the origin."""

from collections.abc import Iterator
from dataclasses import dataclass

import bpy
import numpy as np
from mathutils import Matrix
from numpy.typing import NDArray

from rendering.failure import RenderFailure


@dataclass(frozen=True)
class Shape:
    """The object's geometry after `normalise`: a normalised point is scale · (p + offset)."""

    scale: float
    offset: tuple[float, float, float]
    points: NDArray[np.float64]  # [N, 3] normalised vertices of the drawn faces
    vertices: NDArray[np.float64]  # [M, 3] all normalised vertices, those without faces included
    polygons: int


def normalise() -> Shape:
    """Scale the longest side of the bounding box to 1 and centre it, under one new parent of all that is drawn.

    Raises:
        RenderFailure: `degenerate` if the box is not finite or has no extent.
    """
    vertices, drawn, polygons = _vertices()
    points = vertices[drawn]
    low, high = points.min(axis=0), points.max(axis=0)
    longest = float((high - low).max())
    if not (np.isfinite([low, high]).all() and 1e-9 < longest < 1e9):
        raise RenderFailure("degenerate", f"its bounding box goes from {low.tolist()} to {high.tolist()}")
    scale, offset = 1 / longest, -(low + high) / 2
    roots = _roots()  # before the new parent is one
    parent = bpy.data.objects.new("normalisation", None)
    bpy.context.scene.collection.objects.link(parent)
    for root in roots:
        root.parent = parent
    parent.matrix_world = Matrix.Scale(scale, 4) @ Matrix.Translation(offset.tolist())
    bpy.context.view_layer.update()
    x, y, z = offset.tolist()
    vertices = scale * (vertices + offset)
    return Shape(scale, (x, y, z), vertices[drawn], vertices, polygons)


@dataclass(frozen=True)
class Polygons:
    """A mesh as arrays, as `rendering.faces` takes it: the faces of corner `starts[i]` and up, corners are vertices."""

    points: NDArray[np.float64]  # [V, 3], in the object's frame
    corners: NDArray[np.int64]  # [C]
    starts: NDArray[np.int64]  # [F]


def polygons_of(mesh: bpy.types.Mesh) -> Polygons:
    points = np.empty(len(mesh.vertices) * 3, dtype=np.float32)
    mesh.vertices.foreach_get("co", points)
    corners = np.empty(len(mesh.loops), dtype=np.int32)
    mesh.loops.foreach_get("vertex_index", corners)
    starts = np.empty(len(mesh.polygons), dtype=np.int32)
    mesh.polygons.foreach_get("loop_start", starts)
    return Polygons(points.reshape(-1, 3).astype(np.float64), corners.astype(np.int64), starts.astype(np.int64))


def drawn_objects() -> Iterator[tuple[bpy.types.Object, NDArray[np.float64]]]:
    """Yield each evaluated mesh object that a render shows, instances included, and its object→world matrix `[4, 4]`.

    Requires that what is hidden in the viewport is hidden in the render, and vice versa (`rendering.visibility`).
    """
    for instance in bpy.context.evaluated_depsgraph_get().object_instances:
        if instance.object.type == "MESH":
            yield instance.object, np.array(instance.matrix_world)


def drawn_meshes() -> Iterator[tuple[bpy.types.Mesh, NDArray[np.float64]]]:
    """Yield the evaluated meshes of `drawn_objects`, poses applied."""
    for thing, world in drawn_objects():
        yield thing.data, world


def _roots() -> list[bpy.types.Object]:
    """Return the topmost ancestors of the asset's visible objects.

    Prototypes that are drawn through their instances alone (USD) are not among them: an instance takes its prototype's
    transform as well as its own, and would be normalised twice.
    """
    factory = {bpy.data.objects["Camera"], bpy.data.objects["Light"]}
    roots: dict[bpy.types.Object, None] = {}  # in the order of the scene
    for part in bpy.context.scene.objects:
        if part in factory or not part.visible_get():
            continue
        while part.parent:
            part = part.parent
        roots[part] = None
    return list(roots)


def _vertices() -> tuple[NDArray[np.float64], NDArray[np.bool_], int]:
    """Return world positions `[M, 3]` of all vertices, which of them belong to a face, and the number of faces.

    Lines, points and vertices that belong to no face are not drawn.
    """
    positions, drawn, polygons = [np.empty((0, 3))], [np.empty(0, dtype=bool)], 0
    for mesh, world in drawn_meshes():
        shape = polygons_of(mesh)
        positions.append(shape.points @ world[:3, :3].T + world[:3, 3])
        used = np.zeros(len(shape.points), dtype=bool)
        used[shape.corners] = True
        drawn.append(used)
        polygons += len(shape.starts)
    return np.concatenate(positions), np.concatenate(drawn), polygons
