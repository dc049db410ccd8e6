"""Small assets of several parts, written as GLB, OBJ or USD with full control over vertices, windings and nodes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.bad_assets import glb

BOX = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)], dtype="<f4")
QUADS = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])  # outwards
TRIANGLES = np.concatenate([QUADS[:, [0, 1, 2]], QUADS[:, [0, 2, 3]]])
RED, GREEN, BLUE = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Part:
    """Triangles of one matt material; `node` has further fields of its glTF node."""

    points: np.ndarray = field(default_factory=lambda: BOX)
    faces: np.ndarray = field(default_factory=lambda: TRIANGLES)
    colour: tuple[float, float, float] = RED
    double_sided: bool = True
    flat: bool = True  # a vertex for each corner, with the normal of its face; else shared vertices without normals
    mode: int = 4  # glTF's: triangles
    node: dict[str, Any] = field(default_factory=dict)


def write_glb(path: Path, *parts: Part, one_mesh: bool = False, **document: Any) -> Path:
    """Write `parts` (y up) as nodes, or as the primitives of one mesh; further arguments are fields of the document."""
    arrays: list[np.ndarray] = []
    accessors, primitives = [], []

    def accessor(values: np.ndarray, component: int, kind: str) -> int:
        low_high = {"min": values.min(axis=0).tolist(), "max": values.max(axis=0).tolist()} if kind == "VEC3" else {}
        accessors.append(
            {"bufferView": len(arrays), "componentType": component, "count": len(values), "type": kind} | low_high
        )
        arrays.append(values)
        return len(arrays) - 1

    for number, part in enumerate(parts):
        points, faces = part.points, part.faces
        attributes = {}
        if part.flat:
            corners = part.points[part.faces]
            normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
            normals /= np.linalg.norm(normals, axis=1, keepdims=True)
            points, faces = corners.reshape(-1, 3), np.arange(corners.shape[0] * 3)
            attributes["NORMAL"] = accessor(normals.repeat(3, axis=0).astype("<f4"), 5126, "VEC3")
        attributes["POSITION"] = accessor(points.astype("<f4"), 5126, "VEC3")
        indices = accessor(faces.ravel().astype("<u4"), 5125, "SCALAR")
        primitives.append({"attributes": attributes, "indices": indices, "material": number, "mode": part.mode})
    data = b"".join(array.tobytes() for array in arrays)
    starts = np.cumsum([0, *(array.nbytes for array in arrays)])
    meshes = [{"primitives": primitives}] if one_mesh else [{"primitives": [primitive]} for primitive in primitives]
    nodes = [{"mesh": number} | part.node for number, part in enumerate(parts[: len(meshes)])]
    content = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": list(range(len(nodes)))}],
        "nodes": nodes,
        "meshes": meshes,
        "materials": [_material(part) for part in parts],
        "accessors": accessors,
        "bufferViews": [
            {"buffer": 0, "byteOffset": int(start), "byteLength": array.nbytes}
            for start, array in zip(starts, arrays, strict=False)
        ],
        "buffers": [{"byteLength": len(data)}],
    }
    path.write_bytes(glb(content | document, data))
    return path


def _material(part: Part) -> dict[str, Any]:
    surface = {"baseColorFactor": [*part.colour, 1.0], "metallicFactor": 0.0, "roughnessFactor": 1.0}
    return {"pbrMetallicRoughness": surface, "doubleSided": part.double_sided}


def usd(body: str) -> str:
    """Return a USD layer, z up and in metres, with `body` in its root prim."""
    return f'#usda 1.0\n(\ndefaultPrim = "root"\nmetersPerUnit = 1\nupAxis = "Z"\n)\ndef Xform "root"\n{{\n{body}\n}}\n'


def usd_box(name: str, *lines: str, place: tuple[float, float, float] = (0, 0, 0), size: Any = (1, 1, 1)) -> str:
    """Return a USD mesh of a box, `lines` its further properties."""
    points = ", ".join(f"({x:g}, {y:g}, {z:g})" for x, y, z in BOX.tolist())
    return "\n".join(
        [
            f'def Mesh "{name}"\n{{',
            f"int[] faceVertexCounts = {[4] * 6}",
            f"int[] faceVertexIndices = {QUADS.ravel().tolist()}",
            f"point3f[] points = [{points}]",
            'uniform token subdivisionScheme = "none"',
            f"double3 xformOp:translate = {place}",
            f"float3 xformOp:scale = {size}",
            'uniform token[] xformOpOrder = ["xformOp:translate", "xformOp:scale"]',
            *lines,
            "}",
        ]
    )
