"""Make a mesh of the elements of a PLY as trimesh read them: polygons, colours of any type."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray
from trimesh.visual import TextureVisuals

from inference.meshes.polygons import triangulate
from inference.meshes.srgb import to_bytes

INDICES = ("vertex_indices", "vertex_index")
COLOURS = (("red", "green", "blue"), ("diffuse_red", "diffuse_green", "diffuse_blue"))
MAX_UNIT_COLOUR = 2.0  # floats above are 0 to 255 (docs/conventions.md)


def mesh_of_elements(loaded: trimesh.Trimesh) -> trimesh.Trimesh:
    """Return a mesh that trimesh loaded from a PLY, with its polygons and its sRGB colours as the file has them.

    trimesh divides concave polygons into fans, pairs the colours of polygons with triangles, and wraps colours of more
    than eight bits. A mesh with texture coordinates is returned unchanged.

    Raises:
        ValueError: A face names a vertex that does not exist.
    """
    elements = loaded.metadata.get("_ply_raw", {})
    if isinstance(loaded.visual, TextureVisuals) or not {"vertex", "face"} <= elements.keys():
        return loaded
    polygons = next((_column(elements["face"], name) for name in INDICES if name in _names(elements["face"])), None)
    if polygons is None:
        return loaded
    vertices = np.asarray(loaded.vertices, dtype=np.float64)
    faces, numbers, _ = triangulate(polygons if polygons.ndim == 2 else list(polygons), vertices)
    colours: dict[str, Any] = {}
    if (of_vertices := _colours(elements["vertex"])) is not None:
        colours["vertex_colors"] = of_vertices
    elif (of_polygons := _colours(elements["face"])) is not None:
        colours["face_colors"] = of_polygons[numbers]
    return trimesh.Trimesh(vertices, faces, process=False, **colours)


def _names(element: Mapping[str, Any]) -> Collection[str]:
    return element["properties"] if element["length"] else ()


def _column(element: Mapping[str, Any], name: str) -> NDArray[Any]:
    """Return the values of a property: `[N]`, those of a list `[N, K]`, or `[N]` objects if the lengths differ."""
    values = np.asarray(element["data"][name])
    if values.dtype.names is not None:  # a list of a binary file: its length, and its values
        return values["f1"]
    return values if "$LIST" in element["properties"][name] else values.reshape(len(values))


def _colours(element: Mapping[str, Any]) -> NDArray[np.uint8] | None:
    """Return the sRGB colours `[N, 3]` of an element, None if it has none."""
    names = next((names for names in COLOURS if set(names) <= set(_names(element))), None)
    if names is None:
        return None
    columns = [_column(element, name) for name in names]
    colours = np.stack([column.astype(np.float64) for column in columns], axis=1)
    kind = columns[0].dtype
    if kind.kind in "iu":
        colours /= np.iinfo(kind).max
    elif np.nanmax(colours) > MAX_UNIT_COLOUR:
        colours /= 255
    return to_bytes(np.nan_to_num(colours))
