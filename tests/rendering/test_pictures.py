"""Textures that Blender would draw magenta, black or in part make the object `incomplete` or `unreadable`."""

import base64
import io
import json
import struct

import numpy as np
import pytest
from PIL import Image

from rendering.failure import RenderFailure
from tests.support.bad_assets import POINTS, glb, tetrahedron

TINY = {"resolution": 32, "views": 1, "samples": 1}
OBJ = "mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nvt 0 0\nvt 1 0\nvt 0 1\nusemtl m\n" + "".join(
    f"f {a}/1 {b}/2 {c}/3\n" for a, b, c in ((1, 3, 2), (1, 2, 4), (1, 4, 3), (2, 3, 4))
)


def encoded(kind: str, **options) -> bytes:
    """Return 64² pixels of noise in an image format, so that truncated data cannot be guessed."""
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, kind, **options)
    return file.getvalue()


PICTURES = {
    "png": encoded("PNG"),
    "jpg": encoded("JPEG", quality=90),
    "progressive.jpg": encoded("JPEG", quality=90, progressive=True),
    "webp": encoded("WEBP"),
    "lossless.webp": encoded("WEBP", lossless=True),
    "tif": encoded("TIFF"),
    "dds": encoded("DDS"),
    "tga": encoded("TGA"),
    "bmp": encoded("BMP"),
    "jp2": encoded("JPEG2000"),
}


def beside_obj(folder, name: str, content: bytes):
    (folder / name).write_bytes(content)
    (folder / "a.mtl").write_text(f"newmtl m\nKd 1 1 1\nmap_Kd {name}\n")
    (folder / "a.obj").write_text(OBJ)
    return folder / "a.obj"


def reason(render, path) -> str:
    """Return why `path` gives no views, or `ok`."""
    try:
        render(path, **TINY)
    except RenderFailure as failure:
        return failure.reason
    return "ok"


def test_a_truncated_texture_is_incomplete(render, tmp_path):
    found = {}
    for name, content in PICTURES.items():
        for part in (1.0, 0.95, 0.5):
            path = beside_obj(tmp_path, f"{part}.{name}", content[: int(len(content) * part)])
            found[name, part] = reason(render, path)
    assert found == {(name, part): "ok" if part == 1 else "incomplete" for name, part in found}


@pytest.mark.parametrize("name", ["png", "jpg", "webp"])
def test_a_truncated_texture_within_a_glb_is_incomplete(render, tmp_path, name):
    for part, expected in ((1.0, "ok"), (0.5, "incomplete")):
        content = PICTURES[name][: int(len(PICTURES[name]) * part)]
        document, data = tetrahedron(image=content)
        document["images"][0]["mimeType"] = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}[name]
        if name == "webp":
            document["textures"][0] = {"extensions": {"EXT_texture_webp": {"source": 0}}}
            document["extensionsUsed"] = ["EXT_texture_webp"]
        (tmp_path / "a.glb").write_bytes(glb(document, data))
        assert reason(render, tmp_path / "a.glb") == expected


def dds(kind: int, size: int) -> bytes:
    """Return a DDS of 8 x 8 pixels, `size` bytes each, in the DXGI format `kind`."""
    header = [124, 0x100F, 8, 8, 8 * size, 0, 0, *[0] * 11, 32, 4, 0x30315844, *[0] * 5, 0x1000, 0, 0, 0, 0]
    return b"DDS " + struct.pack("<31I5I", *header, kind, 3, 0, 1, 0) + bytes(range(64)) * size


def test_a_dds_of_an_unsupported_encoding_is_unreadable(render, tmp_path):
    half_floats = 10  # DXGI_FORMAT_R16G16B16A16_FLOAT
    assert reason(render, beside_obj(tmp_path, "paint.dds", dds(half_floats, 8))) == "unreadable"


def test_the_size_of_an_unsupported_dds_is_limited(render, tmp_path):
    content = bytearray(dds(10, 8))
    struct.pack_into("<II", content, 12, 100_000, 100_000)
    assert reason(render, beside_obj(tmp_path, "paint.dds", bytes(content))) == "too_large"


TEXTURES = {
    "no source": {},
    "basisu": {"extensions": {"KHR_texture_basisu": {"source": 0}}},
    "avif": {"extensions": {"EXT_texture_avif": {"source": 0}}},
}


@pytest.mark.parametrize("name", TEXTURES)
@pytest.mark.parametrize("required", [False, True])
def test_a_texture_with_an_unreadable_image_is_incomplete(render, tmp_path, name, required):
    document, data = tetrahedron()
    document["textures"] = [TEXTURES[name]]
    document["extensionsUsed"] = list(TEXTURES[name].get("extensions", {}))
    document["extensionsRequired"] = document["extensionsUsed"] if required else []
    (tmp_path / "a.glb").write_bytes(glb(document, data))
    assert reason(render, tmp_path / "a.glb") == "incomplete"


@pytest.mark.parametrize(("place", "expected"), [("normalTexture", "incomplete"), ("occlusionTexture", "ok")])
def test_only_textures_that_are_drawn_count(render, tmp_path, place, expected):
    """Blender does not draw baked occlusion."""
    document, data = tetrahedron()
    document["textures"].append({})
    document["materials"][0][place] = {"index": 1}
    (tmp_path / "a.glb").write_bytes(glb(document, data))
    assert reason(render, tmp_path / "a.glb") == expected


USD = """#usda 1.0
(upAxis = "Z")
def Xform "root" {{
def Mesh "m" (prepend apiSchemas = ["MaterialBindingAPI"]) {{
    int[] faceVertexCounts = [3, 3]
    int[] faceVertexIndices = [0, 1, 2, 0, 1, 3]
    point3f[] points = [{points}]
    rel material:binding = </root/paint>
}}
def Material "paint" {{
    token outputs:surface.connect = </root/paint/shader.outputs:surface>
    def Shader "shader" {{
        uniform token info:id = "UsdPreviewSurface"
        color3f inputs:diffuseColor.connect = </root/paint/texture.outputs:rgb>
        token outputs:surface
    }}
    def Shader "texture" {{
        uniform token info:id = "UsdUVTexture"
        {file}
        float3 outputs:rgb
    }}
}}
}}
"""


def test_a_usd_texture_without_a_file_is_never_magenta(render, tmp_path):
    points = ", ".join(str(tuple(map(float, point))) for point in POINTS)
    (tmp_path / "paint.png").write_bytes(PICTURES["png"])
    found = {}
    for name, file in {"whole": "asset inputs:file = @paint.png@", "no file": "", "empty": "asset inputs:file"}.items():
        (tmp_path / f"{name}.usda").write_text(USD.format(points=points, file=file))
        try:
            pixels = render(tmp_path / f"{name}.usda", **TINY).pixels
            red, green, blue = pixels[pixels[..., 3] > 127][:, :3].mean(axis=0)
            found[name] = "magenta" if min(red, blue) > 2 * green else "ok"
        except RenderFailure as failure:
            found[name] = failure.reason
    assert found["whole"] == "ok"
    assert {found["no file"], found["empty"]} <= {"ok", "incomplete"}


def test_faces_in_a_udim_tile_without_an_image_are_incomplete(render, tmp_path):
    """One face lies in tile 1001, the other in 1002 (UDIM)."""
    coordinates = "[(0.1, 0), (0.9, 0), (0.9, 1), (1.1, 0), (1.8, 0), (1.8, 1)]"
    text = USD.format(
        points=", ".join(str(tuple(map(float, point))) for point in POINTS),
        file="asset inputs:file = @paint.<UDIM>.png@\n        float2 inputs:st.connect = </root/st.outputs:result>",
    ).replace("    rel ", f'    texCoord2f[] primvars:st = {coordinates} (interpolation = "faceVarying")\n    rel ')
    reader = 'uniform token info:id = "UsdPrimvarReader_float2"\n    token inputs:varname = "st"'
    text = text.rstrip()[:-1] + f'def Shader "st" {{\n    {reader}\n    float2 outputs:result\n}}\n}}\n'
    (tmp_path / "a.usda").write_text(text)
    (tmp_path / "paint.1001.png").write_bytes(PICTURES["png"])
    (tmp_path / "paint.1003.png").write_bytes(PICTURES["png"])
    assert reason(render, tmp_path / "a.usda") == "incomplete"
    (tmp_path / "paint.1002.png").write_bytes(PICTURES["png"])
    assert reason(render, tmp_path / "a.usda") == "ok"


@pytest.mark.parametrize("inside", [True, False])
def test_a_gltf_with_a_byte_order_mark_is_read(render, tmp_path, inside):
    document, data = tetrahedron()
    if inside:
        document["buffers"][0]["uri"] = "data:application/octet-stream;base64," + base64.b64encode(data).decode()
    else:
        document["buffers"][0]["uri"] = "a.bin"
        (tmp_path / "a.bin").write_bytes(data)
    plain, marked = tmp_path / "plain.gltf", tmp_path / "marked.gltf"
    plain.write_text(json.dumps(document))
    marked.write_text(json.dumps(document), encoding="utf-8-sig")
    np.testing.assert_array_equal(render(plain, **TINY).pixels, render(marked, **TINY).pixels)
