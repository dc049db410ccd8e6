"""Malformed, oversized and malicious assets, each with the failure reasons that apply to it."""

import base64
import copy
import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from PIL import Image

from rendering.failure import Reason


@dataclass(frozen=True)
class Bad:
    """Asset file `name`, written by `make` into a folder, and the failure `reasons` that apply to it."""

    name: str
    reasons: tuple[Reason, ...]


def picture(side: int = 8) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), (200, 30, 30)).save(file, "PNG")
    return file.getvalue()


def huge_png(side: int) -> bytes:
    """Return a PNG header of `side`² pixels without pixel data."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    end = b"IDAT" + zlib.compress(b"\0" * 100)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (chunk, end, b"IEND")
    )


POINTS = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype="<f4")
FACES = np.array([0, 1, 2, 0, 1, 3, 0, 2, 3, 1, 2, 3], dtype="<u2")
UVS = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], dtype="<f4")


def tetrahedron(
    image: bytes | None = None, points: np.ndarray = POINTS, faces: np.ndarray = FACES
) -> tuple[Any, bytes]:
    """Return the JSON and the binary part of a valid, textured glTF."""
    parts = [points.tobytes(), faces.tobytes(), UVS.tobytes(), image or picture()]
    starts = np.cumsum([0, *(-(-len(part) // 4) * 4 for part in parts)])
    data = b"".join(part.ljust(-(-len(part) // 4) * 4, b"\0") for part in parts)
    views = zip(starts, parts, strict=False)
    document = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "TEXCOORD_0": 2}, "indices": 1, "material": 0}]}],
        "materials": [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}],
        "textures": [{"source": 0}],
        "images": [{"name": "paint", "bufferView": 3, "mimeType": "image/png"}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 4, "type": "VEC3", "min": [0, 0, 0], "max": [1, 1, 1]},
            {"bufferView": 1, "componentType": 5123, "count": 12, "type": "SCALAR"},
            {"bufferView": 2, "componentType": 5126, "count": 4, "type": "VEC2"},
        ],
        "bufferViews": [{"buffer": 0, "byteOffset": int(at), "byteLength": len(part)} for at, part in views],
        "buffers": [{"byteLength": len(data)}],
    }
    return document, data


def glb(document: Any, data: bytes) -> bytes:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    text = text.ljust(-(-len(text) // 4) * 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(data), b"BIN\0") + data
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def changed(change: Callable[[Any], object], **parts: Any) -> bytes:
    document, data = tetrahedron(**parts)
    change(document)
    return glb(document, data)


def put(**values: Any) -> Callable[[Any], object]:
    """Return a function that changes a document: `a__0__b=1` sets document["a"][0]["b"]."""

    def change(document: Any) -> None:
        for place, value in values.items():
            *path, last = [int(word) if word.isdigit() else word for word in place.split("__")]
            at = document
            for word in path:
                at = at[word]
            at[last] = value

    return change


def make(folder: Path, secret: Path, address: str) -> list[Bad]:
    """Return all kinds; `secret` is a picture outside the folder, `address` that of a web server that logs requests."""
    made: list[Bad] = []
    for name, content, *reasons in (
        *_broken_gltf(), *_greedy_gltf(), *_referring_gltf(folder, secret, address), *_meshes(), *_obj(secret, address),
        *_collada(secret, address), *_usd(secret, address), *_others(),
    ):  # fmt: skip
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        if reasons:
            made.append(Bad(name, tuple(reasons)))
    return made


Kinds = Iterator[tuple[Any, ...]]


def _broken_gltf() -> Kinds:
    good = glb(*tetrahedron())
    document, data = tetrahedron()
    yield "empty.glb", b"", "unreadable"
    for at in (3, 11, 13, 20, 100, len(good) // 2, len(good) - 1):
        yield f"cut_at_{at}.glb", good[:at], "unreadable"
    yield "magic.glb", b"gLTF" + good[4:], "unreadable"
    yield "version_1.glb", good[:4] + struct.pack("<I", 1) + good[8:], "unreadable"
    yield "length_lies.glb", good[:8] + struct.pack("<I", 0xFFFFFFF0) + good[12:], "unreadable"
    yield "chunk_lies.glb", good[:12] + struct.pack("<I", 0x7FFFFFFF) + good[16:], "unreadable"
    yield "no_json_chunk.glb", good[:16] + b"BIN\0" + good[20:], "unreadable"
    yield "not_json.glb", glb(b"{'asset': 2}", data), "unreadable"
    yield "json_nan.glb", glb(json.dumps(document).replace("[1, 1, 1]", "[NaN, 1, 1]").encode(), data), "unreadable"
    yield "not_utf8.glb", glb(b'{"asset": "\xff\xfe"}', data), "unreadable"
    yield "a_list.glb", glb(b"[1, 2]", data), "unreadable"
    yield "view_beyond.glb", changed(put(bufferViews__0__byteLength=10**12)), "unreadable"
    yield "view_negative.glb", changed(put(bufferViews__0__byteOffset=-48)), "unreadable"
    yield "accessor_beyond.glb", changed(put(accessors__0__count=4_000_000)), "unreadable"
    yield "count_negative.glb", changed(put(accessors__0__count=-1)), "unreadable"
    yield "count_text.glb", changed(put(accessors__0__count="many")), "unreadable"
    yield "accessor_of_nothing.glb", changed(put(accessors__0__bufferView=77)), "unreadable"
    yield "component_type.glb", changed(put(accessors__0__componentType=1)), "unreadable"
    yield "mesh_of_nothing.glb", changed(put(nodes__0__mesh=5)), "unreadable"
    yield "faces_beyond.glb", changed(lambda d: None, faces=FACES + np.uint16(60000)), "unreadable", "no_mesh"
    yield "own_child.glb", changed(put(nodes=[{"mesh": 0, "children": [0]}])), "unreadable"
    yield "cycle.glb", changed(put(nodes=[{"mesh": 0, "children": [1]}, {"children": [0]}])), "unreadable"
    yield "two_parents.glb", changed(put(nodes=[{"children": [2]}, {"children": [2]}, {"mesh": 0}])), "unreadable"
    yield "unknown_extension.glb", changed(put(extensionsRequired=["X_y"], extensionsUsed=["X_y"])), "unreadable"
    yield "broken_picture.glb", changed(lambda d: None, image=picture()[:20] + b"\0" * 60), "incomplete"
    yield "no_picture.glb", changed(lambda d: None, image=b"not a picture at all"), "incomplete"


def _greedy_gltf() -> Kinds:
    zeros = {"componentType": 5126, "count": 4_000_000_000, "type": "VEC3"}
    yield "accessor_of_zeros.glb", changed(put(accessors__0=zeros)), "too_large"
    yield "deep_json.glb", glb(b"[" * 100_000 + b"]" * 100_000, b""), "too_large"
    yield "wide_json.gltf", b'{"asset": {"version": "2.0"}, "extras": [' + b"[]," * 3_000_000 + b"0]}", "too_large"
    yield "million_nodes.glb", changed(put(nodes=[{"mesh": 0}] * 1_000_000)), "too_large"
    instanced = {"mesh": 0, "extensions": {"EXT_mesh_gpu_instancing": {"attributes": {"TRANSLATION": 3}}}}
    many = {"componentType": 5126, "count": 1_000_000, "type": "VEC3"}

    def instances(document: Any) -> None:
        document["nodes"] = [instanced]
        document["accessors"].append(many)
        document["extensionsUsed"] = ["EXT_mesh_gpu_instancing"]

    yield "million_instances.glb", changed(instances), "too_large"
    chain = [{"children": [index + 1]} for index in range(5000)]
    yield "deep_nodes.glb", changed(put(nodes=[*chain, {"mesh": 0}])), "too_large"
    yield "picture_16k.glb", changed(lambda d: None, image=huge_png(16384)), "too_large"
    yield "picture_2g.glb", changed(lambda d: None, image=huge_png(2**31 - 1)), "too_large"


def _referring_gltf(folder: Path, secret: Path, address: str) -> Kinds:
    document, data = tetrahedron()
    inline = "data:application/octet-stream;base64," + base64.b64encode(data).decode()

    def gltf(image: str | None = None, buffer: str = inline) -> str:
        changed = copy.deepcopy(document)
        changed["buffers"][0]["uri"] = buffer
        if image:
            changed["images"] = [{"uri": image}]
        return json.dumps(changed)

    up = os.path.relpath(secret, folder)
    (folder / "link.png").symlink_to(secret)
    yield "picture_up.gltf", gltf(up), "external"
    yield "picture_encoded.gltf", gltf(up.replace("..", "%2e%2E").replace("/", "%2f")), "external"
    yield "picture_absolute.gltf", gltf(str(secret)), "external"
    yield "picture_file.gltf", gltf(f"file://{secret}"), "external"
    yield "picture_http.gltf", gltf(f"{address}/secret.png"), "external"
    yield "picture_link.gltf", gltf("link.png"), "external"
    yield "picture_missing.gltf", gltf("nowhere.png"), "incomplete"
    yield "picture_windows.gltf", gltf("C:\\secret.png"), "external"
    yield "picture_zero_byte.gltf", gltf("a%00b.png"), "external"
    yield "buffer_passwd.gltf", gltf(buffer="../" * 20 + "etc/passwd"), "external"
    yield "buffer_device.gltf", gltf(buffer="/dev/zero"), "external"
    yield "buffer_missing.gltf", gltf(buffer="nowhere.bin"), "incomplete"
    yield "few.bin", data[:10]
    yield "buffer_short.gltf", gltf(buffer="few.bin"), "incomplete"
    yield "data_path.gltf", gltf(buffer="data:/../../../../../../../../etc/passwd"), "unreadable"


def _meshes() -> Kinds:
    def ply(points: Any) -> bytes:
        return trimesh.exchange.ply.export_ply(trimesh.Trimesh(points, [[0, 1, 2]], process=False))

    yield "nan.ply", ply(np.full((3, 3), np.nan)), "degenerate"
    yield "one_nan.ply", ply([[0, 0, 0], [1, 0, 0], [0, np.nan, 0]]), "degenerate", "blank"
    yield "infinite.ply", ply(np.full((3, 3), np.inf)), "degenerate"
    yield "huge.ply", ply(np.eye(3) * 1e30), "degenerate"
    yield "a_point.ply", ply(np.zeros((3, 3))), "degenerate"
    yield "points.ply", trimesh.exchange.ply.export_ply(trimesh.PointCloud(np.eye(3))), "no_mesh"
    header = "ply\nformat binary_little_endian 1.0\nelement vertex {}\n" + "".join(
        f"property float {a}\n" for a in "xyz"
    )
    yield "count.ply", header.format(4_000_000_000) + "end_header\n" + "\0" * 900, "unreadable"
    yield "negative.ply", header.format(-1) + "end_header\n" + "\0" * 900, "unreadable"
    yield "no_end.ply", header.format(3), "unreadable"
    yield "empty.ply", b"", "unreadable"
    yield "count.stl", b"\0" * 80 + struct.pack("<I", 4_000_000_000) + b"\0" * 1000, "unreadable"
    yield "empty.stl", b"", "unreadable"
    yield "no_triangles.stl", b"solid nothing\nendsolid nothing\n", "no_mesh", "unreadable"
    for axis in range(3):  # an accessor may hold what its minimum and maximum deny
        points = POINTS.copy()
        points[1, axis] = np.nan
        yield f"nan_{axis}.glb", changed(lambda d: None, points=points), "degenerate"


OBJ = "mtllib {}\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nusemtl paint\nf 1/1 2/2 3/3\n"


def _obj(secret: Path, address: str) -> Kinds:
    yield "empty.obj", "", "unreadable"
    yield "binary.obj", bytes(range(256)) * 20, "unreadable"
    yield "words.obj", "nothing that an OBJ knows\n", "no_mesh", "unreadable"
    yield "faces_beyond.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9999999\nf -77 1 2\n", "no_mesh", "unreadable"
    yield "nan.obj", "v nan nan nan\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "degenerate"
    yield "materials_missing.obj", OBJ.format("nowhere.mtl"), "incomplete"
    yield "materials_passwd.obj", OBJ.format("../" * 20 + "etc/passwd"), "external"
    yield "materials_continued.obj", OBJ.format("\\\n/etc/passwd"), "external"
    for name, line, reason in (
        ("absolute", f"map_Kd {secret}", "external"),
        ("options", f"map_Kd -blendu on -s 1 1 1 -o 0.5 0 {secret}", "external"),
        ("up", "map_Kd ../../../../../../../../secret.png", "external"),
        ("http", f"map_Kd {address}/secret.png", "external"),
        ("bump", f"map_Bump -bm 0.3 {secret}", "external"),
        ("missing", "map_Kd nowhere.png", "incomplete"),
    ):
        yield f"map_{name}.mtl", f"newmtl paint\nKd 1 1 1\n{line}\n"
        yield f"map_{name}.obj", OBJ.format(f"map_{name}.mtl"), reason


DAE = """<?xml version="1.0"?>{doctype}
<COLLADA xmlns="http://www.collada.org/2005/11/COLLADASchema" version="1.4.1">
<asset><unit meter="1"/><up_axis>{up}</up_axis></asset>{images}
<library_geometries><geometry id="g"><mesh>
<source id="p"><float_array id="pa" count="{count}">{points}</float_array><technique_common>
<accessor source="#pa" count="4" stride="3"><param name="X" type="float"/><param name="Y" type="float"/>
<param name="Z" type="float"/></accessor></technique_common></source>
<vertices id="v"><input semantic="POSITION" source="#p"/></vertices>
<triangles count="4"><input semantic="VERTEX" source="#v" offset="0"/><p>0 1 2 0 1 3 0 2 3 1 2 3</p></triangles>
</mesh></geometry></library_geometries>{nodes}
<library_visual_scenes><visual_scene id="s"><node id="n"><instance_geometry url="{url}"/>{inside}</node></visual_scene>
</library_visual_scenes><scene><instance_visual_scene url="#s"/></scene></COLLADA>"""


def dae(**parts: Any) -> str:
    """Return a tetrahedron: 1 to the right, 2 into the picture, 3 up along the axis `up` of COLLADA."""
    points = "0 0 0 1 0 0 0 2 0 0 0 3"
    defaults = {"doctype": "", "up": "Z_UP", "images": "", "nodes": "", "inside": "", "url": "#g", "count": 12}
    return DAE.format(**({"points": points} | defaults | parts))


def _collada(secret: Path, address: str) -> Kinds:
    def image(path: str) -> str:
        return f'<library_images><image id="i"><init_from>{path}</init_from></image></library_images>'

    entities = "".join(f'<!ENTITY e{n + 1} "{f"&e{n};" * 10}">' for n in range(9))
    yield "laughs.dae", dae(doctype=f'<!DOCTYPE x [<!ENTITY e0 "ha">{entities}]>', points="&e9;"), "unreadable"
    yield "entity.dae", dae(doctype=f'<!DOCTYPE x [<!ENTITY e SYSTEM "file://{secret}">]>', up="&e;"), "unreadable"
    yield "dtd.dae", dae(doctype=f'<!DOCTYPE COLLADA SYSTEM "{address}/x.dtd">'), "unreadable"
    yield "empty.dae", "", "unreadable"
    yield "cut.dae", dae()[:700], "unreadable"
    yield "html.dae", "<html><body/></html>", "unreadable"
    yield "count.dae", dae(count=4_000_000_000), "unreadable"
    yield "deep.dae", dae(inside="<node>" * 5000 + "</node>" * 5000), "too_large"
    yield "own_instance.dae", dae(inside='<instance_node url="#n"/>'), "unreadable"
    doubling = "".join(
        f'<node id="d{n}">' + f'<instance_node url="#d{n + 1}"/>' * 10 + "</node>" for n in range(9)
    )  # fmt: skip
    nodes = f'<library_nodes>{doubling}<node id="d9"><instance_geometry url="#g"/></node></library_nodes>'
    yield "billion_instances.dae", dae(nodes=nodes, inside='<instance_node url="#d0"/>'), "too_large"
    yield "other_file.dae", dae(url=f"file://{secret}#g"), "external"
    yield "picture_absolute.dae", dae(images=image(str(secret))), "external"
    yield "picture_file.dae", dae(images=image(f"file://{secret}")), "external"
    yield "picture_http.dae", dae(images=image(f"{address}/secret.png")), "external"
    yield "picture_encoded.dae", dae(images=image("%2e%2e/%2e%2e/secret.png")), "external"
    yield "picture_missing.dae", dae(images=image("nowhere.png")), "incomplete"


USD = """#usda 1.0
({layer})
def Xform "root" ({prim})
{{
def Mesh "mesh"
{{
    int[] faceVertexCounts = [3]
    int[] faceVertexIndices = [0, 1, 2]
    point3f[] points = [(0, 0, 0), (1, 0, 0), (0, 1, 0)]
    {inside}
}}
}}
"""


def _usd(secret: Path, address: str) -> Kinds:
    def usd(layer: str = "", prim: str = "", inside: str = "") -> str:
        return USD.format(layer=layer, prim=prim, inside=inside)

    yield "empty.usda", "", "unreadable"
    yield "words.usda", "#usda 1.0\nnothing of the sort {{{", "unreadable"
    yield "head_only.usdc", b"PXR-USDC" + bytes(80), "unreadable"
    yield "noise.usdz", b"PK\x03\x04" + bytes(200), "unreadable"
    yield "layer_up.usda", usd(layer="subLayers = [@../../../../secret.usda@]"), "external"
    yield "layer_absolute.usda", usd(layer=f"subLayers = [@{secret.with_suffix('.usda')}@]"), "external"
    yield "layer_missing.usda", usd(layer="subLayers = [@./nowhere.usda@]"), "incomplete"
    yield "reference_http.usda", usd(prim=f"references = @{address}/x.usda@"), "external"
    yield "payload_passwd.usda", usd(prim="payload = @/etc/passwd@"), "external"
    yield "picture_absolute.usda", usd(inside=f"asset inputs:file = @{secret}@"), "external"
    yield "picture_missing.usda", usd(inside="asset inputs:file = @nowhere.png@"), "incomplete"
    yield "through.usda", usd(inside=f"asset inputs:file = @{secret}@"), "external"
    yield "two_steps.usda", usd(layer="subLayers = [@./through.usda@]"), "external"
    for name, inside, reason in (
        ("absolute", f"asset inputs:file = @{secret}@", "external"),
        ("up", "asset inputs:file = @../../secret.png@", "external"),
        ("missing", "asset inputs:file = @nowhere.png@", "incomplete"),
    ):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as package:
            package.writestr("root.usda", usd(inside=inside))
        yield f"package_{name}.usdz", file.getvalue(), reason


def _others() -> Kinds:
    yield "empty.fbx", b"", "unreadable"
    yield "text.fbx", "; FBX 7.3.0 project file\n" + "Objects: {}\n" * 9, "unreadable"
    magic = b"Kaydara FBX Binary  \x00\x1a\x00" + struct.pack("<I", 7400)
    yield "head_only.fbx", magic, "unreadable"
    yield "record_beyond.fbx", magic + struct.pack("<IIIB", 2**31, 1, 5, 1) + b"A" + bytes(40), "unreadable"
    array = b"d" + struct.pack("<III", 500_000_000, 1, 20) + bytes(20)
    yield (
        "array_huge.fbx",
        magic + struct.pack("<IIIB", 27 + 14 + len(array), 1, len(array), 1) + b"A" + array,
        "too_large",
    )
    packed = zlib.compress(bytes(10_000_000), 9)
    array = b"d" + struct.pack("<III", 4, 1, len(packed)) + packed
    yield (
        "array_bomb.fbx",
        magic + struct.pack("<IIIB", 27 + 14 + len(array), 1, len(array), 1) + b"A" + array,
        "unreadable",
    )
    yield "scene.blend", b"BLENDER-v405" + bytes(500), "unreadable"
    yield "nothing", b"", "unreadable"
