"""The hash of a mesh changes with each file that the mesh consists of, and with no other."""

import json

import pytest
from PIL import Image

from conf.options import UserError
from inference.meshes.mesh_digest import mesh_digest
from inference.reconstruction.config import ReconstructConfig
from inference.reconstruction.reconstruction import deciding_settings
from inference.reconstruction.sources import oracle_source

OBJ = "mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nvt 0 0\nusemtl m\nf 1/1 3/1 2/1\nf 1/1 2/1 4/1\n"
GLTF = {
    "asset": {"version": "2.0"},
    "scenes": [{"nodes": [0]}],
    "nodes": [{"mesh": 0}],
    "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
    "accessors": [
        {"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3", "min": [0, 0, 0], "max": [1, 1, 0]}
    ],
    "bufferViews": [{"buffer": 0, "byteLength": 36}],
    "buffers": [{"uri": "parts/a.bin", "byteLength": 36}],
    "images": [{"uri": "a.png"}],
}


@pytest.mark.parametrize(
    ("mesh", "parts"), [("a.obj", {"a.obj", "a.mtl", "a.png"}), ("a.gltf", {"a.gltf", "parts/a.bin", "a.png"})]
)
def test_the_hash_follows_every_file_of_a_mesh(tmp_path, mesh, parts):
    (tmp_path / "parts").mkdir()
    (tmp_path / "a.obj").write_text(OBJ)
    (tmp_path / "a.mtl").write_text("newmtl m\nmap_Kd a.png\n")
    (tmp_path / "a.gltf").write_text(json.dumps(GLTF))
    (tmp_path / "parts/a.bin").write_bytes(bytes(36))
    (tmp_path / "other.bin").write_bytes(bytes(36))
    Image.new("RGB", (4, 4), "red").save(tmp_path / "a.png")
    before, changed = mesh_digest(tmp_path / mesh), set()
    for name in ("a.obj", "a.mtl", "a.gltf", "parts/a.bin", "a.png", "other.bin"):
        contents = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(contents + b"\n")
        changed |= {name} if mesh_digest(tmp_path / mesh) != before else set()
        (tmp_path / name).write_bytes(contents)
    assert changed == parts and mesh_digest(tmp_path / mesh) == before


def test_an_oracle_with_another_colour_is_reconstructed_anew(tmp_path):
    (tmp_path / "a.obj").write_text(OBJ)
    config, settings = ReconstructConfig(oracle=str(tmp_path / "a.obj")), []
    for colour in ("1 0 0", "0 0 1"):
        (tmp_path / "a.mtl").write_text(f"newmtl m\nKd {colour}\n")
        settings.append(deciding_settings(oracle_source(tmp_path / "a.obj", config, None), config))
    assert settings[0] != settings[1]


def test_a_file_that_is_not_valid_has_a_hash_and_a_missing_one_a_sentence(tmp_path):
    (tmp_path / "a.glb").write_bytes(b"glTF, but not really")
    assert len(mesh_digest(tmp_path / "a.glb")) == 64
    with pytest.raises(UserError, match=r"b\.glb: cannot be read: no such file"):
        mesh_digest(tmp_path / "b.glb")
