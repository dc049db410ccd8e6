"""Meshes are read upright, normalised and in the colours of the file; damaged files end in a `UserError`."""

import io
import json
import struct

import numpy as np
import pytest
import trimesh
from PIL import Image

from conf.options import UserError
from inference.meshes.ray_casting import RayCaster
from inference.meshes.read_mesh import read_mesh
from rendering.cameras import look_at_origin, orbit, spherical_to_cartesian

FACTOR = trimesh.visual.material.PBRMaterial


def textured(mesh: trimesh.Trimesh, uv=None, **material) -> trimesh.Trimesh:
    mesh.visual = trimesh.visual.TextureVisuals(uv, FACTOR(**material))
    return mesh


def square(uv=((0, 0), (1, 0), (1, 1), (0, 1)), **material) -> trimesh.Trimesh:
    """Return a square in the plane z = 0 of the file that faces +z."""
    corners = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], dtype=float)
    return textured(trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]], process=False), np.array(uv, float), **material)


def seen(mesh, azimuth: float, resolution: int = 8) -> np.ndarray:
    camera = look_at_origin(spherical_to_cartesian(np.pi / 2, azimuth, 1.5))
    return RayCaster(mesh).render(camera[None], resolution)[0]


def test_glb_is_turned_upright_and_normalised(tmp_path):
    box = trimesh.creation.box((2, 8, 4))
    box.apply_translation((10, -3, 7))
    box.export(tmp_path / "a.glb")
    mesh = read_mesh(tmp_path / "a.glb")
    np.testing.assert_allclose(np.abs(mesh.vertices).max(axis=0), (0.125, 0.25, 0.5), atol=1e-7)
    assert mesh.faces.shape == (12, 3) and mesh.uv.shape == (12, 3, 2) and mesh.vertex_colours is None


@pytest.mark.parametrize("suffix", ["ply", "stl"])
def test_ply_and_stl_are_z_up(tmp_path, suffix):
    trimesh.creation.box((2, 8, 4)).export(tmp_path / f"a.{suffix}")
    mesh = read_mesh(tmp_path / f"a.{suffix}")
    np.testing.assert_allclose(np.abs(mesh.vertices).max(axis=0), (0.125, 0.5, 0.25), atol=1e-7)


def test_the_front_of_a_gltf_faces_minus_y(tmp_path):
    picture = Image.fromarray(np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 0]]], dtype=np.uint8))
    square(baseColorTexture=picture).export(tmp_path / "a.glb")
    mesh = read_mesh(tmp_path / "a.glb")
    np.testing.assert_allclose(np.ptp(mesh.vertices, axis=0), (1, 0, 1), atol=1e-7)
    front = seen(mesh, -np.pi / 2, 64)
    quarters = [front[20, 20], front[20, 43], front[43, 20], front[43, 43]]
    expected = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]]
    np.testing.assert_allclose(np.array(quarters)[:, :3], expected, atol=8)  # interpolated between texels


def test_nodes_place_parts_and_mirrored_parts_stay_counter_clockwise(tmp_path):
    scene = trimesh.Scene()
    mirror = np.diag([-1.0, 1, 1, 1])
    mirror[0, 3] = 3
    scene.add_geometry(trimesh.creation.box((1, 1, 1)), geom_name="box", node_name="a")
    scene.graph.update(frame_to="b", frame_from="world", matrix=mirror, geometry="box")
    scene.export(tmp_path / "a.glb")
    mesh = read_mesh(tmp_path / "a.glb")
    assert len(mesh.faces) == 24
    np.testing.assert_allclose(np.ptp(mesh.vertices, axis=0), (1, 0.25, 0.25), atol=1e-7)
    volume = np.einsum("fi,fi->f", mesh.vertices[mesh.faces[:, 0]],
                       np.cross(*np.moveaxis(mesh.vertices[mesh.faces[:, 1:]], 1, 0))) / 6  # fmt: skip
    assert volume.sum() == pytest.approx(2 * 0.25**3)


def test_colours_are_texture_times_factor_times_vertex_colours_in_linear_light(tmp_path):
    grey = Image.fromarray(np.full((2, 2, 3), 188, dtype=np.uint8))  # 0.5 in linear light
    part = square(baseColorTexture=grey, baseColorFactor=[255, 128, 0, 255])
    part.visual.vertex_attributes["color"] = np.full((4, 4), 255, dtype=np.uint8)
    part.export(tmp_path / "a.glb")
    mesh = read_mesh(tmp_path / "a.glb")
    assert len(mesh.textures) == 1
    np.testing.assert_allclose(mesh.textures[0][0, 0], (188, 137, 0, 255), atol=1)  # 0.5, 0.25, 0


def test_alpha_counts_only_as_the_alpha_mode_says(tmp_path):
    picture = Image.fromarray(np.full((2, 2, 4), (10, 20, 30, 100), dtype=np.uint8))
    expected = {"OPAQUE": 255, "MASK": 0, "BLEND": 100}
    for mode, alpha in expected.items():
        square(baseColorTexture=picture, alphaMode=mode).export(tmp_path / f"{mode}.glb")
        assert read_mesh(tmp_path / f"{mode}.glb").textures[0][0, 0].tolist() == [10, 20, 30, alpha]


def test_vertex_colours_of_a_ply_are_srgb_and_those_of_faces_do_not_blend(tmp_path):
    box = trimesh.creation.box()
    box.visual.vertex_colors = np.tile([10, 100, 200, 255], (8, 1))
    box.export(tmp_path / "vertex.ply")
    assert (read_mesh(tmp_path / "vertex.ply").vertex_colours == (10, 100, 200)).all()
    box.visual.face_colors = np.arange(48).reshape(12, 4)
    box.export(tmp_path / "face.ply")
    mesh = read_mesh(tmp_path / "face.ply")
    np.testing.assert_array_equal(mesh.vertex_colours[mesh.faces[5]], [[20, 21, 22]] * 3)


def test_obj_has_the_texture_beside_it_and_none_from_elsewhere(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    Image.new("RGB", (4, 4), (200, 10, 20)).save(folder / "inside.png")
    Image.new("RGB", (4, 4), (200, 10, 20)).save(tmp_path / "outside.png")
    for name, picture in (("a", "inside.png"), ("b", "../outside.png"), ("c", "missing.png"), ("d", "a.obj")):
        (folder / f"{name}.mtl").write_text(f"newmtl m\nKd 1 1 1\nmap_Kd {picture}\n")
        (folder / f"{name}.obj").write_text(
            f"mtllib {name}.mtl\nusemtl m\nv 0 0 0\nv 1 0 0\nv 0 2 0\nvt 0 0\nvt 1 0\nvt 0 1\nf 1/1 2/2 3/3\n"
        )
    mesh = read_mesh(folder / "a.obj")
    assert mesh.textures[0].shape == (4, 4, 4) and mesh.textures[0][0, 0].tolist() == [200, 10, 20, 255]
    np.testing.assert_allclose(np.ptp(mesh.vertices, axis=0), (0.5, 0, 1))  # y up
    for name in "bcd":
        with pytest.raises(UserError, match=f"{name}.obj"):
            read_mesh(folder / f"{name}.obj")


def test_obj_without_material_shows_its_vertex_colours(tmp_path):
    text = "v 0 0 0 1 0 0\nv 1 0 0 1 0 0\nv 0 2 0 1 0 0\nvt 0 0\nf 1/1 2/1 3/1\n"
    (tmp_path / "a.obj").write_text(text)
    mesh = read_mesh(tmp_path / "a.obj")
    assert (mesh.vertex_colours == (255, 0, 0)).all() and (mesh.textures[mesh.material[0]] == 255).all()


def glb(document: dict, binary: bytes) -> bytes:
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def triangle(points, **changes) -> bytes:
    binary = np.asarray(points, dtype="<f4").tobytes()
    return glb({
        "asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
        "accessors": [{"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"}],
        "bufferViews": [{"buffer": 0, "byteLength": len(binary)}], "buffers": [{"byteLength": len(binary)}],
    } | changes, binary)  # fmt: skip


GOOD = [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
BAD = {
    "empty.glb": b"",
    "text.glb": b"hello world, this is not a mesh",
    "cut.glb": triangle(GOOD)[:-20],
    "no_mesh.glb": triangle(GOOD, nodes=[{}]),
    "nan.glb": triangle([[0, 0, 0], [1, 0, 0], [0, np.nan, 0]]),
    "point.glb": triangle([[1, 2, 3]] * 3),
    "draco.glb": triangle(GOOD, extensionsRequired=["KHR_draco_mesh_compression"]),
    "huge.glb": triangle(GOOD, accessors=[{"componentType": 5126, "count": 2**31, "type": "VEC3"}]),
    "cycle.glb": triangle(GOOD, nodes=[{"mesh": 0, "children": [1]}, {"children": [0]}]),
    "outside.gltf": json.dumps(
        {"asset": {"version": "2.0"}, "buffers": [{"uri": "../a.bin", "byteLength": 9}]}
    ).encode(),
    "url.gltf": json.dumps(
        {"asset": {"version": "2.0"}, "buffers": [{"uri": "https://example.org/a.bin", "byteLength": 9}]}
    ).encode(),
    "index.obj": b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n",
    "points.obj": b"v 0 0 0\nv 1 0 0\n",
    "many.ply": b"ply\nformat binary_little_endian 1.0\nelement vertex 999999999\nproperty float x\nend_header\n",
    "short.stl": b"solid",
    "flat.obj": b"v 0 0\nv 1 0\nv 0 1\nf 1 2 3\n",
    "mesh.blend": b"BLENDER",
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_end_in_a_sentence_that_names_them(tmp_path, name):
    (tmp_path / name).write_bytes(BAD[name])
    with pytest.raises(UserError, match=name):
        read_mesh(tmp_path / name)


def test_a_damaged_texture_inside_of_a_file_is_an_error(tmp_path):
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, "PNG")
    data = square(baseColorTexture=Image.open(file)).export(file_type="glb")
    (tmp_path / "a.glb").write_bytes(data)
    np.testing.assert_array_equal(read_mesh(tmp_path / "a.glb").textures[0][..., :3], noise)
    (tmp_path / "b.glb").write_bytes(data.replace(b"\x89PNG", b"\0\0\0\0"))
    with pytest.raises(UserError, match="b.glb"):
        read_mesh(tmp_path / "b.glb")


def test_good_triangle_and_missing_file(tmp_path):
    (tmp_path / "a.glb").write_bytes(triangle(GOOD))
    assert len(read_mesh(tmp_path / "a.glb").faces) == 1
    for name in ("b.glb", "."):
        with pytest.raises(UserError):
            read_mesh(tmp_path / name)


def test_scans_fill_their_box_and_face_the_cameras(scans):
    for name in ("Dino_4", "Schleich_African_Black_Rhino"):
        mesh = read_mesh(scans / f"{name}.glb")
        np.testing.assert_allclose(mesh.vertices.min(axis=0), -mesh.vertices.max(axis=0), atol=1e-12)
        assert np.ptp(mesh.vertices, axis=0).max() == pytest.approx(1)
        pictures = RayCaster(mesh).render(orbit(4, np.pi / 2, 2.0), 32)
        assert (pictures[..., 3] == 255).any(axis=(1, 2)).all()
