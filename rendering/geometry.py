# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure the drawn meshes, and normalise the object to unit size at the origin."""

from collections.abc import Iterator
from dataclasses import dataclass

import bpy
import numpy as np
from mathutils import Matrix
from numpy.typing import NDArray

from rendering.failure import RenderFailure


@dataclass(frozen=True)
class Shape:
    """Geometry of the object after `normalise`: a point p becomes scale · (p + offset).

    Attributes:
        scale: 1 / longest side of the bounding box.
        offset: Negative centre of the bounding box.
        points: Normalised vertices of the drawn faces, `[N, 3]`.
        vertices: All normalised vertices, also those without faces, `[M, 3]`.
        polygons: Number of faces.
    """

    scale: float
    offset: tuple[float, float, float]
    points: NDArray[np.float64]
    vertices: NDArray[np.float64]
    polygons: int


def normalise() -> Shape:
    """Scale the longest side of the bounding box to 1 and centre it, by one new parent of the drawn objects.

    Raises:
        RenderFailure: `degenerate` if the box is not finite or has no extent.
    """
    vertices, drawn, polygons = _vertices()
    points = vertices[drawn]
    low, high = points.min(axis=0), points.max(axis=0)
    longest = float((high - low).max())
    if not (np.isfinite([low, high]).all() and 1e-9 < longest < 1e9):
        raise RenderFailure(
            "degenerate", f"the bounding box, {low.tolist()} to {high.tolist()}, is empty or not finite"
        )
    scale, offset = 1 / longest, -(low + high) / 2
    roots = _roots()  # determined before the new parent becomes one
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
    """A mesh as arrays for `rendering.faces`.

    Attributes:
        points: Vertices in the object's frame, `[V, 3]`.
        corners: Vertex index of each corner, face by face, `[C]`.
        starts: Index of the first corner of each face, `[F]`.
    """

    points: NDArray[np.float64]
    corners: NDArray[np.int64]
    starts: NDArray[np.int64]


def polygons_of(mesh: bpy.types.Mesh) -> Polygons:
    """Return the arrays of `mesh`."""
    points = np.empty(len(mesh.vertices) * 3, dtype=np.float32)
    mesh.vertices.foreach_get("co", points)
    corners = np.empty(len(mesh.loops), dtype=np.int32)
    mesh.loops.foreach_get("vertex_index", corners)
    starts = np.empty(len(mesh.polygons), dtype=np.int32)
    mesh.polygons.foreach_get("loop_start", starts)
    return Polygons(points.reshape(-1, 3).astype(np.float64), corners.astype(np.int64), starts.astype(np.int64))


def drawn_objects() -> Iterator[tuple[bpy.types.Object, NDArray[np.float64]]]:
    """Yield each evaluated mesh object that is drawn, instances included, and its object→world matrix `[4, 4]`.

    Requires that viewport and render hide the same objects (`rendering.visibility`).
    """
    for instance in bpy.context.evaluated_depsgraph_get().object_instances:
        if instance.object.type == "MESH":
            yield instance.object, np.array(instance.matrix_world)


def drawn_meshes() -> Iterator[tuple[bpy.types.Mesh, NDArray[np.float64]]]:
    """Yield the evaluated meshes of `drawn_objects`, poses applied."""
    for obj, world in drawn_objects():
        yield obj.data, world


def _roots() -> list[bpy.types.Object]:
    """Return the topmost ancestors of the asset's visible objects.

    They exclude prototypes that are drawn only by their instances (USD): an instance has the transform of its prototype
    and its own, and would be normalised twice.
    """
    factory = {bpy.data.objects["Camera"], bpy.data.objects["Light"]}
    roots: dict[bpy.types.Object, None] = {}  # a dict keeps the order of the scene
    for part in bpy.context.scene.objects:
        if part in factory or not part.visible_get():
            continue
        while part.parent:
            part = part.parent
        roots[part] = None
    return list(roots)


def _vertices() -> tuple[NDArray[np.float64], NDArray[np.bool_], int]:
    """Return the world positions `[M, 3]` of all vertices, a mask `[M]` of those of faces, and the number of faces.

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
