"""Validation of randomly damaged files of every format raises `RenderFailure` only; the seed is fixed."""

import json
import subprocess
import sys

from rendering.formats import SUFFIXES

FUZZ = """
import collections, io, json, random, sys, traceback
from pathlib import Path
import bpy
bpy.utils.expose_bundled_modules()
import numpy as np
from PIL import Image
from pxr import Sdf, UsdUtils
from rendering import materials
from rendering.failure import RenderFailure
from rendering.asset_validation import redirect, validate
from rendering.asset_validation.references import Pictures
from tests.support.bad_assets import POINTS, dae, glb, picture, tetrahedron

folder, rounds = Path(sys.argv[1]), int(sys.argv[2])
tries, escaped = collections.Counter(), {}

def mutated(data, rng):
    data = bytearray(data)
    match rng.randrange(4):
        case 0:
            return data[: rng.randrange(len(data))]
        case 1:
            at = rng.randrange(len(data))
            data[at : at + 4] = rng.choice([b"\\xff\\xff\\xff\\xff", b"\\0\\0\\0\\0", b"\\0\\0\\0\\x80"])
        case 2:
            at = rng.randrange(len(data))
            del data[at : at + rng.randrange(1, 9)]
        case _:
            for _ in range(rng.randrange(1, 6)):
                data[rng.randrange(len(data))] = rng.randrange(256)
    return data

def attempt(name, action, data):
    tries[name] += 1
    try:
        action(data)
    except RenderFailure:
        pass
    except BaseException as error:
        escaped.setdefault(f"{name}: {type(error).__name__}", traceback.format_exc()[-600:])

def assets():
    "Write a valid file of every format, and yield its path."
    document, data = tetrahedron()
    (folder / "a.glb").write_bytes(glb(document, data))
    document["buffers"][0]["uri"] = "a.bin"
    (folder / "a.bin").write_bytes(data)
    (folder / "a.gltf").write_text(json.dumps(document))
    (folder / "paint.png").write_bytes(picture())
    (folder / "a.mtl").write_text("newmtl m\\nKd 1 1 1\\nmap_Kd -s 1 1 1 paint.png\\n")
    (folder / "a.obj").write_text("mtllib a.mtl\\nv 0 0 0\\nv 1 0 0\\nv 0 1 0\\nvt 0 0\\nusemtl m\\nf 1/1 2/1 3/1\\n")
    image = "<library_images><image id='i'><init_from>paint.png</init_from></image></library_images>"
    (folder / "a.dae").write_text(dae(images=image))
    mesh = "int[] faceVertexCounts = [3]\\nint[] faceVertexIndices = [0, 1, 2]\\nasset file = @paint.png@\\n"
    mesh += "point3f[] points = [(0, 0, 0), (1, 0, 0), (0, 1, 0)]"
    (folder / "a.usda").write_text('#usda 1.0\\ndef Mesh "m" {\\n' + mesh + "\\n}\\n")
    (folder / "a.usd").write_bytes((folder / "a.usda").read_bytes())
    Sdf.Layer.FindOrOpen(str(folder / "a.usda")).Export(str(folder / "a.usdc"))
    UsdUtils.CreateNewUsdzPackage(str(folder / "a.usda"), str(folder / "a.usdz"))
    bpy.ops.wm.ply_export(filepath=str(folder / "a.ply"), export_colors="NONE")
    text = (folder / "a.ply").read_bytes()
    (folder / "a.ply").write_bytes(text.replace(b"\\n", b"\\ncomment TextureFile paint.png\\n", 1))
    bpy.ops.wm.stl_export(filepath=str(folder / "a.stl"))
    bpy.ops.export_scene.fbx(filepath=str(folder / "a.fbx"))
    yield from (path for path in sorted(folder.iterdir()) if path.suffix not in (".png", ".bin", ".mtl"))

def pictures():
    "Yield a small valid picture of each format that Blender or Pillow reads."
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 4), np.uint8), "RGBA")
    for kind in ("PNG", "JPEG", "WEBP", "TGA", "BMP", "TIFF", "DDS", "GIF", "JPEG2000"):
        file = io.BytesIO()
        image.convert("RGB" if kind == "JPEG" else "RGBA").save(file, kind)
        yield kind, file.getvalue()
    for kind, suffix in (("OPEN_EXR", "exr"), ("HDR", "hdr"), ("CINEON", "cin"), ("TARGA", "tga")):
        made = bpy.data.images.new("a", 16, 16)
        made.file_format, made.filepath_raw = kind, str(folder / f"a.{suffix}")
        made.save()
        yield kind, (folder / f"a.{suffix}").read_bytes()

for path in list(assets()):
    content = path.read_bytes()
    validate(path)  # it is valid
    rng = random.Random(path.name)
    target = folder / "mutated" / path.name
    for _ in range(rounds):
        target.parent.mkdir(exist_ok=True)
        for name in ("a.bin", "a.mtl", "paint.png"):
            (target.parent / name).write_bytes((folder / name).read_bytes())
        target.write_bytes(mutated(content, rng))
        attempt(path.suffix, lambda file: redirect(validate(file), folder / "copy"), target)
for kind, content in pictures():
    rng = random.Random(kind)
    for _ in range(rounds):
        data = bytes(mutated(content, rng))
        attempt(kind, lambda data: Pictures().add(data, "paint"), data)
        attempt(kind, materials._problem, data)
print(json.dumps({"tries": tries, "escaped": escaped}), file=sys.stderr)
"""


def test_only_typed_failures_leave_the_validation(renderer, tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", FUZZ, str(tmp_path), "60"], env={"PYTHONPATH": "."}, capture_output=True
    )
    assert run.returncode == 0, run.stderr[-3000:]
    found = json.loads(run.stderr.splitlines()[-1])
    assert set(SUFFIXES) <= set(found["tries"])
    assert not found["escaped"], json.dumps(found["escaped"], indent=1)
