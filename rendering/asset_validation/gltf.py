"""GLB and glTF 2.0: check lengths, counts and references (Khronos, glTF 2.0 specification, 2021)."""

import base64
import codecs
import json
import math
import struct
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np

from rendering.asset_validation.references import Pictures, References, link_all
from rendering.failure import RenderFailure

MAX_JSON_VALUES = 5_000_000
MAX_NODES = 100_000  # including instances
MAX_DEPTH = 400  # of the tree of nodes; Blender's importer is recursive
MAX_NUMBERS = 1_600_000_000  # of all accessors
MAX_IMPLICIT_ZEROS = 10_000_000  # elements of an accessor without a buffer view
MAX_VERTICES = 50_000_000  # drawn: those of each instance count
COMPONENT_BYTES = {5120: 1, 5121: 1, 5122: 2, 5123: 2, 5125: 4, 5126: 4}
COMPONENTS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}

# Extensions that replace the image of a texture by one that Blender cannot decode.
UNSUPPORTED_IMAGE_EXTENSIONS = {"KHR_texture_basisu", "EXT_texture_avif", "MSFT_texture_dds"}

View = tuple[int, int, int]  # start, length and index of the buffer


def check(path: Path, references: References) -> None:
    """Check a GLB or glTF file and find its buffers and images.

    Raises:
        RenderFailure: `external`, `incomplete`, `degenerate` or `too_large`.
        ValueError: The file is not valid.
    """
    data = path.read_bytes()
    text, binary = _chunks(data) if data[:4] == b"glTF" else (data, None)
    if sum(map(text.count, (b",", b"[", b"{"))) > MAX_JSON_VALUES:
        raise RenderFailure("too_large", f"the JSON has more than {MAX_JSON_VALUES:,} values")
    document = json.loads(text, parse_constant=_no_constant)
    references.redirected |= text.startswith(codecs.BOM_UTF8)  # Blender does not accept a byte order mark
    if document["asset"]["version"] != "2.0":
        raise ValueError(f"unsupported glTF version {document['asset']['version']}")
    if unknown := UNSUPPORTED_IMAGE_EXTENSIONS & set(document.get("extensionsRequired", [])):
        raise RenderFailure("incomplete", f"the textures need {min(unknown)}, which Blender does not support")
    buffers = [
        _buffer(buffer, binary if not index else None, references)
        for index, buffer in enumerate(document.get("buffers", []))
    ]
    views = [_view(view, buffers) for view in document.get("bufferViews", [])]
    _check_accessors(document, views)
    _check_nodes(document)
    for number in _positions(document):
        _check_positions(document, number, views, buffers)
    pictures = Pictures()
    for index, image in enumerate(document.get("images", [])):
        name = str(image.get("name") or image.get("uri", "")[:80] or index)
        if "uri" in image:
            pictures.add(_fetch(image["uri"], references), name)
        else:
            start, length, buffer = views[_index(image["bufferView"])]
            pictures.add(bytes(buffers[buffer][start : start + length]), name)


def _chunks(data: bytes) -> tuple[bytes, memoryview | None]:
    """Return the JSON and the binary chunk of a GLB."""
    version, length = struct.unpack_from("<II", data.ljust(12, b"\0"), 4)
    if version != 2 or length != len(data):
        raise ValueError(f"the header declares version {version} and {length:,} bytes; the file has {len(data):,}")
    chunks: list[tuple[bytes, memoryview]] = []
    at = 12
    while at < length and len(chunks) < 2:
        if at + 8 > length:
            raise ValueError("a chunk ends before its header does")
        size, kind = struct.unpack_from("<I4s", data, at)
        if at + 8 + size > length:
            raise ValueError(f"a chunk of {size:,} bytes exceeds the file")
        chunks.append((kind, memoryview(data)[at + 8 : at + 8 + size]))
        at += 8 + size
    if not chunks or chunks[0][0] != b"JSON":
        raise ValueError("the first chunk is not JSON")
    return bytes(chunks[0][1]), chunks[1][1] if len(chunks) > 1 and chunks[1][0] == b"BIN\0" else None


def _buffer(buffer: dict[str, Any], binary: memoryview | None, references: References) -> memoryview:
    declared = _index(buffer["byteLength"])
    if "uri" not in buffer:  # valid as long as no buffer view refers to it
        return binary or memoryview(b"")
    content = _fetch(buffer["uri"], references)
    data = memoryview(content if isinstance(content, bytes) else content.read_bytes())
    if len(data) < declared:
        raise RenderFailure("incomplete", f"buffer {buffer['uri'][:80]!r} has {len(data):,} of {declared:,} bytes")
    return data


def _fetch(uri: str, references: References) -> bytes | Path:
    """Return the content of a data URI, or the path of the file that it names."""
    if not uri.startswith("data:"):
        return references.find(unquote(uri), references.asset)
    header, separator, content = uri.partition(";base64,")
    if not separator or "/.." in header:  # Blender treats others as paths
        raise ValueError("a data URI is not base64")
    return base64.b64decode(content)


def _view(view: dict[str, Any], buffers: list[memoryview]) -> View:
    start, length, buffer = _index(view.get("byteOffset", 0)), _index(view["byteLength"]), _index(view["buffer"])
    if start + length > len(buffers[buffer]):
        raise ValueError(f"a buffer view ends at byte {start + length:,} of {len(buffers[buffer]):,}")
    if not 0 <= view.get("byteStride", 4) <= 252:
        raise ValueError(f"invalid byteStride {view['byteStride']}")
    return start, length, buffer


def _check_accessors(document: dict[str, Any], views: list[View]) -> None:
    total, strides = 0, [view.get("byteStride", 0) for view in document.get("bufferViews", [])]
    for accessor in document.get("accessors", []):
        count = _index(accessor["count"])
        size = COMPONENT_BYTES[accessor["componentType"]] * COMPONENTS[accessor["type"]]
        total += count * COMPONENTS[accessor["type"]]
        if total > MAX_NUMBERS:
            raise RenderFailure("too_large", f"the accessors have more than {MAX_NUMBERS:,} numbers")
        if "bufferView" in accessor:
            _check_range(accessor, count, size, views, strides[accessor["bufferView"]])
        elif count > MAX_IMPLICIT_ZEROS:
            raise RenderFailure("too_large", f"an accessor has {count:,} elements without data")
        if sparse := accessor.get("sparse"):
            sparse_count = _index(sparse["count"])
            if sparse_count > count:
                raise ValueError(f"an accessor of {count:,} elements has {sparse_count:,} sparse values")
            _check_range(sparse["indices"], sparse_count, COMPONENT_BYTES[sparse["indices"]["componentType"]], views)
            _check_range(sparse["values"], sparse_count, size, views)


def _check_range(part: dict[str, Any], count: int, size: int, views: list[View], stride: int = 0) -> None:
    length = views[_index(part["bufferView"])][1]
    if count and _index(part.get("byteOffset", 0)) + (count - 1) * (stride or size) + size > length:
        raise ValueError(f"an accessor of {count:,} x {size} bytes in a buffer view of {length:,}")


def _positions(document: dict[str, Any]) -> set[int]:
    parts = [part for mesh in document.get("meshes", []) for part in mesh["primitives"]]
    return {part["attributes"]["POSITION"] for part in parts if "POSITION" in part["attributes"]}


def _check_positions(document: dict[str, Any], number: int, views: list[View], buffers: list[memoryview]) -> None:
    """Check that an accessor of positions is finite; Blender moves other points to the origin without an error."""
    accessor = document["accessors"][_index(number)]
    if accessor["componentType"] != 5126 or "bufferView" not in accessor:
        return
    start, _, buffer = views[accessor["bufferView"]]
    stride = document["bufferViews"][accessor["bufferView"]].get("byteStride", 12)
    start += accessor.get("byteOffset", 0)
    bytes_needed = max(0, stride * (accessor["count"] - 1) + 12)
    data = np.frombuffer(buffers[buffer][start : start + bytes_needed], dtype=np.uint8)
    points = np.ndarray((accessor["count"], 3), "<f4", data, strides=(stride, 4)) if len(data) else np.zeros(3)
    if not np.isfinite(points).all():
        raise RenderFailure("degenerate", "some points are not finite")


def _check_nodes(document: dict[str, Any]) -> None:
    """Check that the nodes are a forest without cycles and place a limited number of vertices."""
    nodes, accessors = document.get("nodes", []), document.get("accessors", [])
    parents = Counter(_index(child) for node in nodes for child in node.get("children", []))
    if any(count > 1 or child >= len(nodes) for child, count in parents.items()):
        raise ValueError("a node has two parents, or a child does not exist")
    level, visited, depth = [index for index in range(len(nodes)) if index not in parents], 0, 0
    while level:
        visited, depth = visited + len(level), depth + 1
        level = [child for index in level for child in nodes[index].get("children", [])]
    if visited < len(nodes):
        raise ValueError("the nodes form a cycle")
    if depth > MAX_DEPTH:
        raise RenderFailure("too_large", f"the nodes are {depth} levels deep; the limit is {MAX_DEPTH}")
    vertices = [
        sum(_index(accessors[part["attributes"].get("POSITION", -1)]["count"]) for part in mesh["primitives"]
            if "POSITION" in part["attributes"])
        for mesh in document.get("meshes", [])
    ]  # fmt: skip
    placed = drawn = 0
    for node in nodes:
        copies = 1
        for accessor in node.get("extensions", {}).get("EXT_mesh_gpu_instancing", {}).get("attributes", {}).values():
            copies = max(copies, accessors[_index(accessor)]["count"])
        placed += copies
        if "mesh" in node:
            drawn += copies * vertices[_index(node["mesh"])]
        numbers = [*node.get("matrix", []), *node.get("translation", []), *node.get("scale", [])]
        if not all(map(math.isfinite, numbers)):
            raise ValueError("the transform of a node is not finite")
    if placed > MAX_NODES:
        raise RenderFailure("too_large", f"the file places {placed:,} nodes; the limit is {MAX_NODES:,}")
    if drawn > MAX_VERTICES:
        raise RenderFailure("too_large", f"the file draws {drawn:,} vertices; the limit is {MAX_VERTICES:,}")


def _index(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is not a count or an index")
    return value


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is not valid JSON")


def copy(references: References, folder: Path) -> Path:
    """Write the file into `folder` with links to its images and buffers, and return its path."""
    resolved = references.resolved.get(references.asset, {})  # a file may be copied for its byte order mark alone
    links = link_all(resolved.values(), folder)
    data = references.asset.read_bytes()
    text, binary = _chunks(data) if data[:4] == b"glTF" else (data, None)
    document = json.loads(text)
    for part in (*document.get("images", []), *document.get("buffers", [])):
        if target := resolved.get(unquote(part.get("uri", ""))):
            part["uri"] = quote(links[target])
    text = json.dumps(document).encode()
    if data[:4] == b"glTF":
        text += b" " * (-len(text) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text
        if binary is not None:
            chunks += struct.pack("<I4s", len(binary), b"BIN\0") + binary
        text = struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks
    (folder / references.asset.name).write_bytes(text)
    return folder / references.asset.name
