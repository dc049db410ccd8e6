"""Meshes are written with their shape, colours and orientation: each file is read back as the mesh that it was."""

import json
import struct
from dataclasses import replace

import numpy as np
import pytest
import trimesh
from PIL import Image

from conf.options import UserError
from inference.meshes.height import parse_height
from inference.meshes.ray_casting import RayCaster
from inference.meshes.read_mesh import read_mesh
from inference.meshes.textured_mesh import TexturedMesh
from inference.meshes.write_mesh import write_mesh
from rendering.cameras import look_at_origin, orbit, spherical_to_cartesian

SIZE = np.array([0.5, 1.0, 0.25])  # of the box along x, y, z
SIDE_COLOURS = np.array([[200, 0, 0], [0, 150, 0], [0, 0, 250], [90, 90, 0], [0, 60, 90], [20, 30, 40]], dtype=np.uint8)


def box() -> tuple[np.ndarray, np.ndarray]:
    solid = trimesh.creation.box(SIZE)
    return np.asarray(solid.vertices, dtype=float), np.asarray(solid.faces, dtype=np.int64)


@pytest.fixture(scope="module")
def painted() -> TexturedMesh:
    """Return a box with a colour on each side, +x, -x, +y, …: a column of the texture for each."""
    vertices, faces = box()
    normal = np.cross(vertices[faces[:, 1]] - vertices[faces[:, 0]], vertices[faces[:, 2]] - vertices[faces[:, 0]])
    axis = np.abs(normal).argmax(axis=1)
    side = 2 * axis + (normal[np.arange(12), axis] < 0)
    uv = (np.array([[0.3, 0.2], [0.7, 0.2], [0.5, 0.8]]) + np.stack([side, 0 * side], axis=1)[:, None]) / [6, 1]
    texture = np.full((4, 60, 4), 255, dtype=np.uint8)
    texture[..., :3] = np.repeat(SIDE_COLOURS, 10, axis=0)
    return TexturedMesh(vertices, faces, uv, np.zeros(12, dtype=np.int64), (texture,))


@pytest.fixture(scope="module")
def coloured() -> TexturedMesh:
    """Return a box with colours of the vertices, dark ones too."""
    vertices, faces = box()
    colours = np.array([[i, 2 * i, 255 - 30 * i] for i in range(1, 9)], dtype=np.uint8)
    white = np.full((1, 1, 4), 255, dtype=np.uint8)
    return TexturedMesh(vertices, faces, np.zeros((12, 3, 2)), np.zeros(12, dtype=np.int64), (white,), colours)


def six_sides(mesh: TexturedMesh) -> np.ndarray:
    """Return the colours that cameras at +x, -x, +y, -y, +z, -z see at the centre of their pictures."""
    poses = [(90, 0), (90, 180), (90, 90), (90, 270), (0.01, 0), (179.99, 0)]
    cameras = [look_at_origin(spherical_to_cartesian(*np.radians(pose), 2.0)) for pose in poses]
    return RayCaster(mesh).render(np.stack(cameras), 9)[:, 4, 4, :3]


@pytest.mark.parametrize("suffix", [".glb", ".obj", ".OBJ"])
def test_a_texture_returns_on_its_sides(tmp_path, painted, suffix):
    path = tmp_path / f"my box{suffix}"
    write_mesh(path, painted)
    mesh = read_mesh(path)
    np.testing.assert_allclose(np.ptp(mesh.vertices, axis=0), SIZE, atol=1e-6)
    np.testing.assert_array_equal(six_sides(mesh), SIDE_COLOURS)
    np.testing.assert_array_equal(mesh.textures[0], painted.textures[0])
    names = {".glb": {"my box.glb"}}.get(suffix, {f"my box{suffix}", "my box.mtl", "my box.png"})
    assert {file.name for file in tmp_path.iterdir()} == names


@pytest.mark.parametrize("suffix", [".glb", ".obj", ".ply"])
def test_colours_of_vertices_return_dark_ones_too(tmp_path, coloured, suffix):
    write_mesh(tmp_path / f"a{suffix}", coloured)
    mesh = read_mesh(tmp_path / f"a{suffix}")
    cameras = orbit(4, np.pi / 3, 2.0)
    ours, theirs = (RayCaster(part).render(cameras, 16).astype(int) for part in (coloured, mesh))
    np.testing.assert_allclose(ours, theirs, atol=1)
    for place, colour in zip(mesh.vertices, mesh.vertex_colours, strict=True):
        nearest = np.linalg.norm(coloured.vertices - place, axis=1).argmin()
        np.testing.assert_array_equal(colour, coloured.vertex_colours[nearest])


def test_a_ply_has_the_colours_of_the_texture_at_the_vertices(tmp_path, painted):
    texture = np.full((64, 64, 4), 255, dtype=np.uint8)
    texture[..., 0], texture[..., 1] = np.arange(64) * 4, 100
    uv = np.repeat((0.9 * painted.vertices[painted.faces][..., :1] / SIZE[0] + 0.5), 2, axis=-1)
    write_mesh(tmp_path / "a.ply", replace(painted, uv=uv, textures=(texture,)))
    mesh = read_mesh(tmp_path / "a.ply")
    left = mesh.vertices[:, 0] < 0
    assert (mesh.vertex_colours[left, 0] < 30).all() and (mesh.vertex_colours[~left, 0] > 225).all()
    assert (mesh.vertex_colours[:, 1] == 100).all()
    np.testing.assert_allclose(np.ptp(mesh.vertices, axis=0), SIZE, atol=1e-6)


def test_several_textures_and_factors_of_vertices_return(tmp_path, painted, coloured):
    other = np.full((1, 1, 4), (0, 128, 255, 255), dtype=np.uint8)
    several = replace(painted, material=np.arange(12) // 2 % 2, textures=(*painted.textures, other))
    both = replace(several, vertex_colours=coloured.vertex_colours)
    cameras = orbit(3, np.pi / 3, 2.0)
    for name, mesh in (("a.glb", several), ("b.glb", both), ("c.obj", several)):
        write_mesh(tmp_path / name, mesh)
        ours, theirs = (RayCaster(part).render(cameras, 16).astype(int) for part in (mesh, read_mesh(tmp_path / name)))
        np.testing.assert_allclose(ours, theirs, atol=1)
    write_mesh(tmp_path / "d.obj", both)
    assert read_mesh(tmp_path / "d.obj").vertex_colours is not None


def test_transparent_texels_stay_transparent(tmp_path, painted):
    texture = painted.textures[0].copy()
    texture[:, :10, 3] = 0  # the side that faces +x
    write_mesh(tmp_path / "a.glb", replace(painted, textures=(texture,)))
    assert six_sides(read_mesh(tmp_path / "a.glb"))[0].tolist() == SIDE_COLOURS[1].tolist()  # the inside of -x


def test_an_stl_is_the_solid(tmp_path, painted):
    write_mesh(tmp_path / "a.stl", painted)
    solid = trimesh.load_mesh(tmp_path / "a.stl")
    assert solid.is_watertight and solid.volume == pytest.approx(SIZE.prod())
    np.testing.assert_allclose(solid.extents, SIZE)


@pytest.mark.parametrize(("suffix", "up", "unit"), [(".glb", 1, 1), (".obj", 1, 1), (".ply", 2, 1), (".stl", 2, 1000)])
def test_a_height_is_that_of_the_upright_axis(tmp_path, painted, suffix, up, unit):
    write_mesh(tmp_path / f"a{suffix}", painted, height_m=0.12)
    solid = trimesh.load_mesh(tmp_path / f"a{suffix}", process=False)
    other = {1: [0, 2, 1], 2: [0, 1, 2]}[up]
    np.testing.assert_allclose(solid.extents[other], SIZE * 0.12 / SIZE[2] * unit, rtol=1e-5)


def test_a_glb_is_valid_and_has_normals_that_are_smooth_except_at_creases(tmp_path, painted):
    sphere = trimesh.creation.icosphere(subdivisions=3, radius=0.5)
    white = np.full((1, 1, 4), 255, dtype=np.uint8)
    count = len(sphere.faces)
    ball = TexturedMesh(
        np.array(sphere.vertices), np.array(sphere.faces, dtype=np.int64), np.zeros((count, 3, 2)),
        np.zeros(count, dtype=np.int64), (white,),
    )  # fmt: skip
    for name, mesh in (("box", painted), ("ball", ball)):
        write_mesh(tmp_path / f"{name}.glb", mesh)
        data = (tmp_path / f"{name}.glb").read_bytes()
        magic, version, length, text = struct.unpack_from("<4sIII", data)
        assert (magic, version, length) == (b"glTF", 2, len(data)) and length % 4 == 0
        material = json.loads(data[20 : 20 + text])["materials"][0]["pbrMetallicRoughness"]
        assert material["metallicFactor"] == 0 and material["roughnessFactor"] == 1
    loaded = trimesh.load_mesh(tmp_path / "ball.glb", process=False)
    np.testing.assert_allclose(loaded.vertex_normals, loaded.vertices / 0.5, atol=0.01)
    loaded = trimesh.load_mesh(tmp_path / "box.glb", process=False)
    assert np.isclose(np.abs(loaded.vertex_normals).max(axis=1), 1).all()  # along the axes


def test_equal_meshes_give_equal_files_and_no_file_is_partial(tmp_path, painted):
    for name in ("a.glb", "b.glb"):
        write_mesh(tmp_path / name, painted)
    assert (tmp_path / "a.glb").read_bytes() == (tmp_path / "b.glb").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_written_texture_is_a_picture_without_alpha_where_it_is_opaque(tmp_path, painted):
    write_mesh(tmp_path / "a.obj", painted)
    assert Image.open(tmp_path / "a.png").mode == "RGB"


def test_other_suffixes_and_the_height_of_a_flat_mesh_are_errors(tmp_path, painted):
    flat = replace(painted, vertices=painted.vertices * [1, 1, 0])
    for name, mesh, height in (("a.fbx", painted, None), ("a", painted, None), ("a.glb", flat, 0.1)):
        with pytest.raises(UserError):
            write_mesh(tmp_path / name, mesh, height)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "metres"), [("12cm", 0.12), ("0.3m", 0.3), ("150mm", 0.15), (" 1.5 CM ", 0.015), (".5m", 0.5)]
)
def test_heights_have_a_unit(text, metres):
    assert parse_height(text) == pytest.approx(metres)


@pytest.mark.parametrize("text", ["12", "cm", "0cm", "-3cm", "1e3m", "nanm", "3ft", "", "1,5cm", "9" * 400 + "m"])
def test_other_heights_are_errors(text):
    with pytest.raises(UserError):
        parse_height(text)
