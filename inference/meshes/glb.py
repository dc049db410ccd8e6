"""Encode a mesh as binary glTF 2.0: one file with its textures."""

import io
import json
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference.meshes.normals import corner_normals
from inference.meshes.srgb import to_linear
from inference.meshes.textured_mesh import TexturedMesh

# Enumerations of the specification
FLOAT, UNSIGNED_INT = 5126, 5125
ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963
TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3"}
SAMPLER = {"magFilter": 9729, "minFilter": 9987, "wrapS": 10497, "wrapT": 10497}  # trilinear, repeated


def encode_glb(mesh: TexturedMesh) -> bytes:
    """Return a mesh in the axes of glTF (y up) as a GLB: a primitive and a PNG for each texture, smooth normals.

    trimesh writes one too, but the colours of vertices with 8 bits: they are linear, so that dark ones would be lost.
    """
    file = _File()
    normals = corner_normals(mesh.vertices, mesh.faces)
    primitives = [file.primitive(mesh, normals, number) for number in np.unique(mesh.material)]
    return file.encode({"meshes": [{"primitives": primitives}]})


def encode_png(texture: NDArray[np.uint8]) -> bytes:
    """Return an RGBA texture `[H, W, 4]` as PNG, without alpha where it is opaque."""
    file = io.BytesIO()
    Image.fromarray(texture if (texture[..., 3] < 255).any() else texture[..., :3]).save(file, "PNG")
    return file.getvalue()


class _File:
    """The lists of a glTF document and its binary data."""

    def __init__(self) -> None:
        self.binary = bytearray()
        self.lists: dict[str, list[dict[str, Any]]] = {}

    def add(self, name: str, item: dict[str, Any]) -> int:
        """Append an item to a list of the document and return its index."""
        self.lists.setdefault(name, []).append(item)
        return len(self.lists[name]) - 1

    def view(self, data: bytes, **fields: Any) -> int:
        start = len(self.binary)
        self.binary += data + bytes(-len(data) % 4)
        return self.add("bufferViews", {"buffer": 0, "byteOffset": start, "byteLength": len(data), **fields})

    def accessor(self, values: NDArray, target: int, bounds: bool = False) -> int:
        """Add an array `[N, C]`, or `[N]` of indices."""
        indices = target == ELEMENT_ARRAY_BUFFER
        values = np.ascontiguousarray(values, dtype="<u4" if indices else "<f4")
        item = {
            "bufferView": self.view(values.tobytes(), target=target),
            "componentType": UNSIGNED_INT if indices else FLOAT,
            "count": len(values),
            "type": TYPES[values.size // len(values)],
        }
        if bounds:
            item |= {"min": values.min(axis=0).tolist(), "max": values.max(axis=0).tolist()}
        return self.add("accessors", item)

    def primitive(self, mesh: TexturedMesh, normals: NDArray, number: int) -> dict[str, Any]:
        """Add the faces with texture `number`; a corner that differs from its vertex's others becomes a vertex."""
        chosen = mesh.material == number
        plain_white = (mesh.textures[number] == 255).all()
        faces, uv = mesh.faces[chosen].reshape(-1, 1), mesh.uv[chosen].reshape(-1, 2)
        columns = [faces, normals[chosen].reshape(-1, 3)] + ([] if plain_white else [uv])
        corners, indices = np.unique(np.concatenate(columns, axis=1), axis=0, return_inverse=True)
        vertex = corners[:, 0].astype(np.int64)
        attributes = {
            "POSITION": self.accessor(mesh.vertices[vertex], ARRAY_BUFFER, bounds=True),
            "NORMAL": self.accessor(corners[:, 1:4], ARRAY_BUFFER),
        }
        if not plain_white:
            attributes["TEXCOORD_0"] = self.accessor(corners[:, 4:] * [1, -1] + [0, 1], ARRAY_BUFFER)  # from the top
        if mesh.vertex_colours is not None:
            attributes["COLOR_0"] = self.accessor(to_linear(mesh.vertex_colours[vertex] / 255), ARRAY_BUFFER)
        return {
            "attributes": attributes,
            "indices": self.accessor(indices.ravel(), ELEMENT_ARRAY_BUFFER),
            "material": self.material(None if plain_white else mesh.textures[number]),
        }

    def material(self, texture: NDArray[np.uint8] | None) -> int:
        surface: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
        item = {"pbrMetallicRoughness": surface, "doubleSided": True}  # as in ray casting
        if texture is not None:
            image = self.add("images", {"bufferView": self.view(encode_png(texture)), "mimeType": "image/png"})
            sampler = 0 if "samplers" in self.lists else self.add("samplers", SAMPLER)
            surface["baseColorTexture"] = {"index": self.add("textures", {"source": image, "sampler": sampler})}
            if (texture[..., 3] < 255).any():
                item["alphaMode"] = "MASK"
        return self.add("materials", item)

    def encode(self, document: dict[str, Any]) -> bytes:
        """Return the file with the lists and a scene of one node with mesh 0."""
        document = {
            "asset": {"version": "2.0", "generator": "inference.meshes"},
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": [{"mesh": 0}],
            **document,
            **self.lists,
            "buffers": [{"byteLength": len(self.binary)}],
        }
        text = json.dumps(document, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text
        chunks += struct.pack("<I4s", len(self.binary), b"BIN\0") + bytes(self.binary)
        return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks
