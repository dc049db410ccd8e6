"""Meshes of odd but valid files are read as Blender imports them; the expected values are worked out by hand."""

import json

import numpy as np
import pytest
import trimesh
from PIL import Image

from conf.options import UserError
from inference.meshes.read_mesh import read_mesh
from inference.meshes.textured_mesh import TexturedMesh

ARROW = [(0, 0), (4, 0), (4, 4), (2, 1), (0, 4)]  # concave at (2, 1); its area is 10
DART = [(4, 0), (1, 1), (0, 4), (0, 0)]  # concave at (1, 1), which lies on no fan of its first corner; its area is 4


def area(mesh: TexturedMesh) -> float:
    a, b, c = np.moveaxis(mesh.vertices[mesh.faces], 1, 0)
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2)


def polygon_obj(points) -> str:
    corners = " ".join(str(number) for number in range(1, len(points) + 1))
    return "".join(f"v {x} {y} 0\n" for x, y in points) + f"f {corners}\n"


def write_textured(folder, text: str) -> None:
    """Write an OBJ with a material, without which texture coordinates have no use."""
    Image.new("RGB", (2, 2), "red").save(folder / "a.png")
    (folder / "a.mtl").write_text("newmtl m\nmap_Kd a.png\n")
    (folder / "a.obj").write_text(f"mtllib a.mtl\nusemtl m\n{text}")


def ply(points, faces, properties="", vertex_values="", face_properties="", face_values="") -> str:
    return (
        f"ply\nformat ascii 1.0\nelement vertex {len(points)}\nproperty float x\nproperty float y\nproperty float z\n"
        f"{properties}element face {len(faces)}\nproperty list uchar int vertex_indices\n{face_properties}end_header\n"
        + "".join(f"{x} {y} 0 {vertex_values}\n" for x, y in points)
        + "".join(f"{len(face)} {' '.join(map(str, face))} {face_values}\n" for face in faces)
    )


@pytest.mark.parametrize(("points", "expected"), [(ARROW, 10), (DART, 4)])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_concave_polygon_is_filled_once_and_keeps_its_front(tmp_path, points, expected, reverse):
    points = points[::-1] if reverse else points
    (tmp_path / "a.obj").write_text(polygon_obj(points))
    (tmp_path / "a.ply").write_text(ply(points, [range(len(points))]))
    for name, up in (("a.obj", 1), ("a.ply", 2)):
        mesh = read_mesh(tmp_path / name, normalise=False)
        assert len(mesh.faces) == len(points) - 2
        assert area(mesh) == pytest.approx(expected)
        a, b, c = np.moveaxis(mesh.vertices[mesh.faces], 1, 0)
        normals = np.cross(b - a, c - a) @ {1: [0, -1, 0], 2: [0, 0, 1]}[up]
        order = np.array(points, dtype=float)
        turn = np.cross(order, np.roll(order, -1, axis=0)).sum()
        assert (normals * turn > 0).all()


def test_a_concave_polygon_keeps_its_texture_coordinates(tmp_path):
    text = polygon_obj(ARROW).replace("f 1 2 3 4 5", "f 1/1 2/2 3/3 4/4 5/5")
    write_textured(tmp_path, text + "".join(f"vt {x / 4} {y / 4}\n" for x, y in ARROW))
    mesh = read_mesh(tmp_path / "a.obj", normalise=False)
    np.testing.assert_allclose(mesh.uv, mesh.vertices[mesh.faces][..., [0, 2]] / 4)


def test_relative_indices_of_an_obj_count_from_the_face(tmp_path):
    write_textured(
        tmp_path,
        "v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nf -3/-1 -2/-1 -1/-1\n"
        "v 5 0 0\nv 6 0 0\nv 5 1 0\nvt 0.5 0.25\nf -3/-1 -2/-1 -1/-1\n",
    )
    mesh = read_mesh(tmp_path / "a.obj", normalise=False)
    assert area(mesh) == pytest.approx(1) and np.ptp(mesh.vertices[:, 0]) == 6
    assert sorted(mesh.uv.reshape(-1, 2).tolist()) == [[0, 0]] * 3 + [[0.5, 0.25]] * 3


@pytest.mark.parametrize("libraries", ["mtllib r.mtl\nmtllib b.mtl\n", "mtllib r.mtl b.mtl\n"])
def test_an_obj_has_the_materials_of_all_its_libraries(tmp_path, libraries):
    for name, colour in (("r", "1 0 0"), ("b", "0 0 1")):
        (tmp_path / f"{name}.mtl").write_text(f"newmtl {name}\nKd {colour}\n")
    (tmp_path / "a.obj").write_text(f"{libraries}v 0 0 0\nv 1 0 0\nv 0 1 0\nusemtl b\nf 1 2 3\nusemtl r\nf 3 2 1\n")
    textures = read_mesh(tmp_path / "a.obj").textures
    assert sorted(texture[0, 0].tolist() for texture in textures) == [[0, 0, 255, 255], [255, 0, 0, 255]]


@pytest.mark.parametrize("edit", [
    lambda text: text.replace(" ", "\t"), lambda text: text.replace("\n", " # note\n"),
    lambda text: text.replace(" 4 5", " \\\n4 5"), lambda text: "  " + text.replace("\n", "\r\n  "),
])  # fmt: skip
def test_tabs_comments_continued_and_indented_lines_of_an_obj_are_read(tmp_path, edit):
    (tmp_path / "a.obj").write_text(edit(polygon_obj(ARROW)))
    assert area(read_mesh(tmp_path / "a.obj", normalise=False)) == pytest.approx(10)


COLOURS = "".join(f"property {{0}} {name}\n" for name in ("red", "green", "blue"))
SQUARE, FACES = [(0, 0), (1, 0), (1, 1), (0, 1)], [[0, 1, 2, 3]]


@pytest.mark.parametrize(
    ("kind", "values"),
    [("uchar", "255 128 0"), ("float", "1 0.501 0"), ("float", "255 128 0"), ("ushort", "65535 32768 0")],
)
def test_colours_of_a_ply_are_scaled_by_their_type(tmp_path, kind, values):
    (tmp_path / "a.ply").write_text(ply(SQUARE, FACES, COLOURS.format(kind), values))
    assert np.unique(read_mesh(tmp_path / "a.ply").vertex_colours, axis=0).tolist() == [[255, 128, 0]]


def test_colours_of_the_quads_of_a_ply_are_those_of_both_triangles(tmp_path):
    points = [*SQUARE, (2, 0), (2, 1)]
    text = ply(points, [*FACES, [1, 4, 5, 2]], "", "", COLOURS.format("uchar"), "COLOUR")
    (tmp_path / "a.ply").write_text(text.replace("COLOUR", "255 0 0", 1).replace("COLOUR", "0 0 255", 1))
    mesh = read_mesh(tmp_path / "a.ply", normalise=False)
    assert len(mesh.faces) == 4
    for face in mesh.faces:
        left = mesh.vertices[face, 0].mean() < 1
        np.testing.assert_array_equal(mesh.vertex_colours[face], [[255, 0, 0] if left else [0, 0, 255]] * 3)


def triangle_gltf(**changes) -> dict:
    return {
        "asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
        "accessors": [{"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"}],
        "bufferViews": [{"buffer": 0, "byteLength": 36}], "buffers": [{"byteLength": 36, "uri": "my%20mesh.bin"}],
    } | changes  # fmt: skip


def write_gltf(folder, document) -> None:
    (folder / "my mesh.bin").write_bytes(np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], dtype="<f4").tobytes())
    (folder / "a.gltf").write_text(json.dumps(document))


def test_the_names_of_files_in_a_gltf_are_uris(tmp_path):
    write_gltf(tmp_path, triangle_gltf())
    assert len(read_mesh(tmp_path / "a.gltf").faces) == 1


@pytest.mark.parametrize("required", [False, True])
def test_the_diffuse_colour_of_a_specular_material_is_its_base_colour(tmp_path, required):
    name = "KHR_materials_pbrSpecularGlossiness"
    write_gltf(tmp_path, triangle_gltf(
        materials=[{"extensions": {name: {"diffuseFactor": [1, 0, 0, 1], "specularFactor": [0.5, 0.5, 0.5]}}}],
        meshes=[{"primitives": [{"attributes": {"POSITION": 0}, "material": 0}]}],
        extensionsUsed=[name], extensionsRequired=[name] * required,
    ))  # fmt: skip
    assert read_mesh(tmp_path / "a.gltf").textures[0].tolist() == [[[255, 0, 0, 255]]]


def test_the_diffuse_texture_of_a_specular_material_is_its_base_colour(tmp_path):
    name = "KHR_materials_pbrSpecularGlossiness"
    Image.new("RGB", (2, 2), (200, 100, 50)).save(tmp_path / "a.png")
    write_gltf(tmp_path, triangle_gltf(
        materials=[{"extensions": {name: {"diffuseTexture": {"index": 0}}}}], textures=[{"source": 0}],
        images=[{"uri": "a.png"}], meshes=[{"primitives": [{"attributes": {"POSITION": 0}, "material": 0}]}],
    ))  # fmt: skip
    assert read_mesh(tmp_path / "a.gltf").textures[0][0, 0].tolist() == [200, 100, 50, 255]


def test_the_parts_of_a_gltf_keep_the_order_of_the_file(tmp_path):
    factors = [[number / 20, 0, 0, 1] for number in range(20)]
    write_gltf(tmp_path, triangle_gltf(
        materials=[{"pbrMetallicRoughness": {"baseColorFactor": factor}} for factor in factors],
        meshes=[{"primitives": [{"attributes": {"POSITION": 0}, "material": number} for number in range(20)]}],
    ))  # fmt: skip
    reds = [int(texture[0, 0, 0]) for texture in read_mesh(tmp_path / "a.gltf").textures]
    assert len(reds) == 20 and reds == sorted(reds)


def test_geometry_that_would_be_left_out_is_an_error(tmp_path):
    fan = [{"primitives": [{"attributes": {"POSITION": 0}, "mode": 6}]}]
    sparse = {"count": 1, "indices": {"bufferView": 0, "componentType": 5125}, "values": {"bufferView": 0}}
    accessor = triangle_gltf()["accessors"][0] | {"sparse": sparse}
    for change, sentence in (({"meshes": fan}, "triangle fans"), ({"accessors": [accessor]}, "sparse accessors")):
        write_gltf(tmp_path, triangle_gltf(**change))
        with pytest.raises(UserError, match=f"a.gltf: .*{sentence}"):
            read_mesh(tmp_path / "a.gltf")


def test_a_texture_of_the_vertices_of_a_ply_stays(tmp_path):
    box = trimesh.creation.box()
    box.visual = trimesh.visual.TextureVisuals(np.random.default_rng(0).random((8, 2)))
    box.export(tmp_path / "a.ply")
    mesh = read_mesh(tmp_path / "a.ply")
    assert mesh.uv.any() and len(mesh.faces) == 12
