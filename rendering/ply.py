# SPDX-License-Identifier: GPL-3.0-or-later
"""Complete what Blender's PLY importer leaves out: pictures, texture coordinates by other names, data per face."""

from pathlib import Path

import bpy
import numpy as np
from numpy.typing import NDArray
from plyfile import PlyData, PlyElement, PlyParseError

from rendering.asset_validation.points import read_header
from rendering.asset_validation.references import References
from rendering.failure import RenderFailure

COORDINATES = (("u", "v"), ("texture_u", "texture_v"), ("texture_s", "texture_t"))  # Blender reads (s, t) itself
COLOURS = ("red", "green", "blue")
OTHER_COLOURS = tuple(f"diffuse_{name}" for name in COLOURS)  # of vertices; Blender reads COLOURS itself
TRIANGLES = {"vertex_indices": 3, "vertex_index": 3, "texcoord": 6}  # lengths of lists where all faces are triangles


def complete(mesh: bpy.types.Mesh, references: References) -> None:
    """Add to `mesh`, the imported asset, its pictures (MeshLab's `comment TextureFile`) or the colours of its faces.

    Raises:
        RenderFailure: `incomplete` for a picture, `unreadable` if the data of the faces cannot be read.
    """
    path = references.asset
    header = read_header(path)
    names = header.properties.get("face", {})
    pictures = header.pictures
    coloured = set(COLOURS) <= names.keys() and not mesh.color_attributes
    if coloured or (pictures and {"texcoord", "texnumber"} & names.keys()):
        faces = _read_faces(path, [name for name, kind in names.items() if kind.startswith("list")])
        kept = _kept(faces, mesh)
    else:
        faces, kept = None, np.empty(0, np.int64)
    if pictures and _add_coordinates(mesh, faces, kept):
        for name in pictures:
            mesh.materials.append(_textured(references.find(name, path)))
        if len(pictures) > 1:
            mesh.polygons.foreach_set("material_index", _numbers(mesh, faces, kept).clip(0, len(pictures) - 1))
    elif coloured:
        _add_colours(mesh, faces, kept)
    elif not mesh.color_attributes and all(name in mesh.attributes for name in OTHER_COLOURS):
        values = np.stack(
            [*(_vertex_values(mesh, name) for name in OTHER_COLOURS), np.ones(len(mesh.vertices))], axis=1
        )
        layer = mesh.color_attributes.new("vertices", "FLOAT_COLOR", "POINT")
        layer.data.foreach_set("color_srgb", values.astype(np.float32).ravel())


def _read_faces(path: Path, lists: list[str]) -> PlyElement:
    """Read the face element: at once if all faces are triangles, one by one otherwise."""
    problem: Exception = ValueError()
    for lengths in ({name: TRIANGLES[name] for name in lists if name in TRIANGLES}, {}):
        try:
            return PlyData.read(str(path), known_list_len={"face": lengths})["face"]
        except (PlyParseError, ValueError, LookupError, OverflowError) as error:
            problem = error
    raise RenderFailure("unreadable", f"the data of its faces cannot be read: {problem}") from problem


def _kept(faces: PlyElement, mesh: bpy.types.Mesh) -> NDArray[np.int64]:
    """Return the row in the file of each polygon of `mesh`: Blender keeps their order, and drops degenerate ones."""
    properties = {item.name for item in faces.properties}
    rows = faces["vertex_indices" if "vertex_indices" in properties else "vertex_index"]
    corners = np.empty(len(mesh.loops), dtype=np.int32)
    mesh.loops.foreach_get("vertex_index", corners)
    sizes = np.empty(len(mesh.polygons), dtype=np.int32)
    mesh.polygons.foreach_get("loop_total", sizes)
    if len(rows) == len(sizes) and np.array_equal(np.concatenate(list(rows)), corners):
        return np.arange(len(rows))
    kept, at = [], 0
    for polygon in np.split(corners, np.cumsum(sizes)[:-1]):
        while at < len(rows) and not np.array_equal(rows[at], polygon):
            at += 1
        kept.append(at)
        at += 1
    if at > len(rows):
        raise RenderFailure("unreadable", "its faces hold textures or colours, but some faces are not valid")
    return np.array(kept)


def _add_coordinates(mesh: bpy.types.Mesh, faces: PlyElement | None, kept: NDArray[np.int64]) -> bool:
    """Give `mesh` texture coordinates, of its faces or of its vertices; return whether the file holds any."""
    if faces is not None and "texcoord" in (item.name for item in faces.properties):
        rows = faces["texcoord"]
        flat = [_fitted(rows[row], 2 * polygon.loop_total) for row, polygon in zip(kept, mesh.polygons, strict=True)]
        mesh.uv_layers.new(name="texcoord", do_init=False).data.foreach_set("uv", np.concatenate(flat))
        return True
    for u, v in COORDINATES:
        if u in mesh.attributes and v in mesh.attributes:
            corners = np.empty(len(mesh.loops), dtype=np.int32)
            mesh.loops.foreach_get("vertex_index", corners)
            uv = np.stack([_vertex_values(mesh, name)[corners] for name in (u, v)], axis=1)
            mesh.uv_layers.new(name="UVMap", do_init=False).data.foreach_set("uv", uv.ravel())
            return True
    return bool(mesh.uv_layers)


def _fitted(row: NDArray[np.float64], size: int) -> NDArray[np.float32]:
    """Return `row`, or zeros if it does not hold `size` numbers: MeshLab lets faces without a texture have none."""
    return np.asarray(row, np.float32) if len(row) == size else np.zeros(size, np.float32)


def _vertex_values(mesh: bpy.types.Mesh, name: str) -> NDArray[np.float32]:
    values = np.empty(len(mesh.vertices), dtype=np.float32)
    mesh.attributes[name].data.foreach_get("value", values)
    return values


def _numbers(mesh: bpy.types.Mesh, faces: PlyElement | None, kept: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return the number of the picture of each polygon, by face or by vertex."""
    if faces is not None and "texnumber" in (item.name for item in faces.properties):
        return np.asarray(faces["texnumber"])[kept].astype(np.int32)
    if "texnumber" in mesh.attributes:
        first = np.array([polygon.vertices[0] for polygon in mesh.polygons])
        return _vertex_values(mesh, "texnumber")[first].astype(np.int32)
    return np.zeros(len(mesh.polygons), np.int32)


def _add_colours(mesh: bpy.types.Mesh, faces: PlyElement, kept: NDArray[np.int64]) -> None:
    """Give each corner of a polygon the colour, sRGB, of its face; integers are parts of their type's maximum."""
    kind = faces[COLOURS[0]].dtype
    most = np.iinfo(kind).max if kind.kind in "iu" else 1
    colours = np.stack([*(np.asarray(faces[name])[kept] / most for name in COLOURS), np.ones(len(kept))], axis=1)
    sizes = [polygon.loop_total for polygon in mesh.polygons]
    layer = mesh.color_attributes.new("faces", "FLOAT_COLOR", "CORNER")
    layer.data.foreach_set("color_srgb", np.repeat(colours, sizes, axis=0).astype(np.float32).ravel())


def _textured(picture: Path) -> bpy.types.Material:
    """Return a material with `picture` as its base colour."""
    material = bpy.data.materials.new(picture.name)
    material.use_nodes = True
    tree = material.node_tree
    node = tree.nodes.new("ShaderNodeTexImage")
    try:
        node.image = bpy.data.images.load(str(picture), check_existing=True)
    except RuntimeError as error:
        raise RenderFailure("incomplete", f"picture {picture.name!r} cannot be opened") from error
    tree.links.new(node.outputs["Color"], tree.nodes["Principled BSDF"].inputs["Base Color"])
    return material
