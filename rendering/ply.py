# SPDX-License-Identifier: GPL-3.0-or-later
"""Add PLY data that Blender's importer ignores: textures, texture coordinates of other names, data per face."""

from pathlib import Path

import bpy
import numpy as np
from numpy.typing import NDArray
from plyfile import PlyData, PlyElement, PlyParseError

from rendering.asset_validation.points import read_header
from rendering.asset_validation.references import References
from rendering.failure import RenderFailure

UV_PROPERTIES = (("u", "v"), ("texture_u", "texture_v"), ("texture_s", "texture_t"))  # Blender reads (s, t)
COLOUR_PROPERTIES = ("red", "green", "blue")  # Blender reads those of vertices
DIFFUSE_PROPERTIES = tuple(f"diffuse_{name}" for name in COLOUR_PROPERTIES)
TRIANGLE_LIST_LENGTHS = {"vertex_indices": 3, "vertex_index": 3, "texcoord": 6}


def complete(mesh: bpy.types.Mesh, references: References) -> None:
    """Add textures (MeshLab's `comment TextureFile`) or colours of faces to `mesh`, the imported asset.

    Raises:
        RenderFailure: `incomplete` if a texture is missing, `unreadable` if the data of the faces cannot be read.
    """
    path = references.asset
    header = read_header(path)
    names = header.properties.get("face", {})
    pictures = header.pictures
    coloured = set(COLOUR_PROPERTIES) <= names.keys() and not mesh.color_attributes
    if coloured or (pictures and {"texcoord", "texnumber"} & names.keys()):
        faces = _read_faces(path, [name for name, kind in names.items() if kind.startswith("list")])
        kept = _kept(faces, mesh)
    else:
        faces, kept = None, np.empty(0, np.int64)
    if pictures and _add_coordinates(mesh, faces, kept):
        for name in pictures:
            mesh.materials.append(_textured(references.find(name, path)))
        if len(pictures) > 1:
            mesh.polygons.foreach_set("material_index", _texture_indices(mesh, faces, kept).clip(0, len(pictures) - 1))
    elif coloured:
        _add_colours(mesh, faces, kept)
    elif not mesh.color_attributes and all(name in mesh.attributes for name in DIFFUSE_PROPERTIES):
        values = np.stack(
            [*(_vertex_values(mesh, name) for name in DIFFUSE_PROPERTIES), np.ones(len(mesh.vertices))], axis=1
        )
        layer = mesh.color_attributes.new("vertices", "FLOAT_COLOR", "POINT")
        layer.data.foreach_set("color_srgb", values.astype(np.float32).ravel())


def _read_faces(path: Path, lists: list[str]) -> PlyElement:
    """Read the face element; much faster if all faces are triangles."""
    problem: Exception = ValueError()
    for lengths in ({name: TRIANGLE_LIST_LENGTHS[name] for name in lists if name in TRIANGLE_LIST_LENGTHS}, {}):
        try:
            return PlyData.read(str(path), known_list_len={"face": lengths})["face"]
        except (PlyParseError, ValueError, LookupError, OverflowError) as error:
            problem = error
    raise RenderFailure("unreadable", f"the data of the faces cannot be read: {problem}") from problem


def _kept(faces: PlyElement, mesh: bpy.types.Mesh) -> NDArray[np.int64]:
    """Return the row in the file of each polygon of `mesh`: Blender keeps the order and drops degenerate faces."""
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
        raise RenderFailure("unreadable", "the faces have textures or colours, but some faces are not valid")
    return np.array(kept)


def _add_coordinates(mesh: bpy.types.Mesh, faces: PlyElement | None, kept: NDArray[np.int64]) -> bool:
    """Add the texture coordinates of the faces or vertices to `mesh`; return whether the file has any."""
    if faces is not None and "texcoord" in (item.name for item in faces.properties):
        rows = faces["texcoord"]
        flat = [_fitted(rows[row], 2 * polygon.loop_total) for row, polygon in zip(kept, mesh.polygons, strict=True)]
        mesh.uv_layers.new(name="texcoord", do_init=False).data.foreach_set("uv", np.concatenate(flat))
        return True
    for u, v in UV_PROPERTIES:
        if u in mesh.attributes and v in mesh.attributes:
            corners = np.empty(len(mesh.loops), dtype=np.int32)
            mesh.loops.foreach_get("vertex_index", corners)
            uv = np.stack([_vertex_values(mesh, name)[corners] for name in (u, v)], axis=1)
            mesh.uv_layers.new(name="UVMap", do_init=False).data.foreach_set("uv", uv.ravel())
            return True
    return bool(mesh.uv_layers)


def _fitted(row: NDArray[np.float64], size: int) -> NDArray[np.float32]:
    """Return `row`, or `size` zeros if its length differs: MeshLab writes none for faces without a texture."""
    return np.asarray(row, np.float32) if len(row) == size else np.zeros(size, np.float32)


def _vertex_values(mesh: bpy.types.Mesh, name: str) -> NDArray[np.float32]:
    values = np.empty(len(mesh.vertices), dtype=np.float32)
    mesh.attributes[name].data.foreach_get("value", values)
    return values


def _texture_indices(mesh: bpy.types.Mesh, faces: PlyElement | None, kept: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return the index of the texture of each polygon, given per face or per vertex."""
    if faces is not None and "texnumber" in (item.name for item in faces.properties):
        return np.asarray(faces["texnumber"])[kept].astype(np.int32)
    if "texnumber" in mesh.attributes:
        first = np.array([polygon.vertices[0] for polygon in mesh.polygons])
        return _vertex_values(mesh, "texnumber")[first].astype(np.int32)
    return np.zeros(len(mesh.polygons), np.int32)


def _add_colours(mesh: bpy.types.Mesh, faces: PlyElement, kept: NDArray[np.int64]) -> None:
    """Give each corner the sRGB colour of its face; integers are divided by the maximum of their type."""
    kind = faces[COLOUR_PROPERTIES[0]].dtype
    maximum = np.iinfo(kind).max if kind.kind in "iu" else 1
    colours = np.stack(
        [*(np.asarray(faces[name])[kept] / maximum for name in COLOUR_PROPERTIES), np.ones(len(kept))], axis=1
    )
    sizes = [polygon.loop_total for polygon in mesh.polygons]
    layer = mesh.color_attributes.new("faces", "FLOAT_COLOR", "CORNER")
    layer.data.foreach_set("color_srgb", np.repeat(colours, sizes, axis=0).astype(np.float32).ravel())


def _textured(picture: Path) -> bpy.types.Material:
    """Return a material with the image file `picture` as its base colour."""
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
