"""Parts without a material show their vertex colours, or the texture that their file names without assigning it."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from rendering.failure import RenderFailure
from tests.support.bad_assets import dae

TINY = {
    "resolution": 32,
    "views": 2,
    "samples": 4,
    "cameras": "fixed",
    "poses": [[60, 45, 2], [60, 225, 2]],
    "passes": ["albedo"],
}
COLOUR = (128, 64, 255)  # sRGB
LINEAR = (0.215861, 0.051269, 1.0)  # equal to COLOUR, by IEC 61966-2-1
RED, BLUE = (255, 0, 0), (0, 0, 255)
CORNERS = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))
FACES = ((0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3))


def albedo(views) -> np.ndarray:
    """Return the base colours, sRGB `[N, 3]`, of the pixels that the object covers in both views."""
    pictures = [Image.open(io.BytesIO(views.files[f"00{view}.albedo.webp"])).convert("RGBA") for view in range(2)]
    pixels = np.concatenate([np.asarray(picture).reshape(-1, 4) for picture in pictures])
    return pixels[pixels[:, 3] == 255][:, :3].astype(int)


def shares(pixels: np.ndarray) -> tuple[float, float]:
    """Return the parts of `pixels` `[N, 3]` in which red, and blue, exceeds the other two channels by far."""
    return tuple(
        float((pixels[:, channel] - np.delete(pixels, channel, axis=1).max(axis=1) > 90).mean()) for channel in (0, 2)
    )


def rows(parts, *more) -> str:
    """Return a line for each of `parts`: its numbers, then those of `more`."""
    table = zip(parts, *more, strict=True)
    return "".join(" ".join(str(number) for part in row for number in part) + "\n" for row in table)


def ply(vertex: str, face: str, vertices: str, faces: str, comment: str = "") -> str:
    """Return a PLY with further properties of its vertices and faces, such as `uchar red`."""
    header = ["ply", "format ascii 1.0", *([f"comment {comment}"] if comment else []), "element vertex 4"]
    header += [f"property {name}" for name in ("float x", "float y", "float z", *filter(None, vertex.split(",")))]
    header += ["element face 4", "property list uchar int vertex_indices"]
    header += [f"property {name}" for name in filter(None, face.split(","))]
    return "\n".join([*header, "end_header\n"]) + vertices + faces


def colours(kind: str) -> str:
    return ",".join(f"{kind} {name}" for name in ("red", "green", "blue"))


TRIANGLES = [(3, *face) for face in FACES]
OBJ_FACES = "".join(f"f {a + 1} {b + 1} {c + 1}\n" for a, b, c in FACES)


def obj(values) -> str:
    return "".join(f"v {row}" for row in rows(CORNERS, values).splitlines(keepends=True)) + OBJ_FACES


def usd(values, interpolation: str, more: str = "") -> str:
    return f"""#usda 1.0
(upAxis = "Z")
def Xform "root" {{
def Mesh "m" (prepend apiSchemas = ["MaterialBindingAPI"]) {{
    int[] faceVertexCounts = [3, 3, 3, 3]
    int[] faceVertexIndices = {json.dumps([corner for face in FACES for corner in face])}
    point3f[] points = [{", ".join(map(str, CORNERS))}]
    uniform token subdivisionScheme = "none"
    color3f[] primvars:displayColor = [{", ".join(map(str, values))}] (interpolation = "{interpolation}")
    {more}
}}
}}
"""


def collada(values) -> str:
    """Return the tetrahedron of `dae` with a colour per vertex."""
    numbers = " ".join(str(round(value / 255, 4)) for colour in values for value in colour)
    parameters = "".join(f'<param name="{name}" type="float"/>' for name in "RGB")
    source = (
        f'<source id="c"><float_array id="ca" count="12">{numbers}</float_array><technique_common>'
        f'<accessor source="#ca" count="4" stride="3">{parameters}</accessor></technique_common></source><vertices'
    )
    corner = '<input semantic="VERTEX" source="#v" offset="0"/>'
    coloured = corner + '<input semantic="COLOR" source="#c" offset="0"/>'
    return dae().replace("<vertices", source).replace(corner, coloured)


UNIT = tuple(value / 255 for value in COLOUR)
ONE_COLOUR = {
    "bytes.ply": ply(colours("uchar"), "", rows(CORNERS, [COLOUR] * 4), rows(TRIANGLES)),
    "floats.ply": ply(colours("float"), "", rows(CORNERS, [UNIT] * 4), rows(TRIANGLES)),
    "floats_to_255.ply": ply(colours("float"), "", rows(CORNERS, [COLOUR] * 4), rows(TRIANGLES)),
    "old_names.ply": ply(
        ",".join(f"uchar diffuse_{name}" for name in ("red", "green", "blue")), "",
        rows(CORNERS, [COLOUR] * 4), rows(TRIANGLES),
    ),
    "faces.ply": ply("", colours("uchar"), rows(CORNERS), rows(TRIANGLES, [COLOUR] * 4)),
    "unit.obj": obj([UNIT] * 4),
    "to_255.obj": obj([COLOUR] * 4),
    "constant.usda": usd([LINEAR], "constant"),
    "uniform.usda": usd([LINEAR] * 4, "uniform"),
    "vertex.usda": usd([LINEAR] * 4, "vertex"),
    "corner.usda": usd([LINEAR] * 12, "faceVarying"),
    "a.dae": collada([COLOUR] * 4),
}  # fmt: skip


@pytest.mark.parametrize("name", ONE_COLOUR)
def test_a_uniform_vertex_colour_is_drawn_and_counts_as_one_colour(render, tmp_path, name):
    (tmp_path / name).write_text(ONE_COLOUR[name])
    views = render(tmp_path / name, **TINY)
    np.testing.assert_allclose(np.median(albedo(views), axis=0), COLOUR, atol=2)
    assert "plain" in views.meta["verdicts"]


TWO = [RED, RED, BLUE, BLUE]
TWO_COLOURS = {
    "vertices.ply": ply(colours("uchar"), "", rows(CORNERS, TWO), rows(TRIANGLES)),
    "faces.ply": ply("", colours("uchar"), rows(CORNERS), rows(TRIANGLES, TWO)),
    "a.obj": obj(np.divide(TWO, 255)),
    "vertex.usda": usd([(1, 0, 0)] * 2 + [(0, 0, 1)] * 2, "vertex"),
    "uniform.usda": usd([(1, 0, 0)] * 2 + [(0, 0, 1)] * 2, "uniform"),
    "a.dae": collada(TWO),
}


@pytest.mark.parametrize("name", TWO_COLOURS)
def test_varying_vertex_colours_are_drawn_and_count_as_many(render, tmp_path, name):
    (tmp_path / name).write_text(TWO_COLOURS[name])
    views = render(tmp_path / name, **TINY)
    assert min(shares(albedo(views))) > 0.1
    assert "plain" not in views.meta["verdicts"]


FBX = """
bpy.ops.wm.read_factory_settings(use_empty=True)
def add(name, colours, material=None):
    mesh = bpy.data.meshes.new(name)
    mesh.from_pydata([(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)], [], {faces})
    layer = mesh.color_attributes.new("Col", "BYTE_COLOR", "CORNER")
    for item, colour in zip(layer.data, colours * 12):
        item.color_srgb = [*(value / 255 for value in colour), 1]
    if material:
        mesh.materials.append(material)
    bpy.context.scene.collection.objects.link(bpy.data.objects.new(name, mesh))
green = bpy.data.materials.new("green")
green.use_nodes = True
green.node_tree.nodes["Principled BSDF"].inputs["Base Color"].default_value = (0, 1, 0, 1)
add("plain", [{colour}])
bpy.ops.export_scene.fbx(filepath=to + "/plain.fbx")
bpy.data.objects.remove(bpy.data.objects["plain"])
add("painted", [{colour}], green)
bpy.ops.export_scene.fbx(filepath=to + "/painted.fbx")
"""


def test_an_fbx_shows_its_colour_layer_where_it_has_no_material(render, blender_script, tmp_path):
    blender_script(f"to = {str(tmp_path)!r}" + FBX.format(faces=FACES, colour=COLOUR))
    np.testing.assert_allclose(np.median(albedo(render(tmp_path / "plain.fbx", **TINY)), axis=0), COLOUR, atol=2)
    np.testing.assert_allclose(np.median(albedo(render(tmp_path / "painted.fbx", **TINY)), axis=0), (0, 255, 0), atol=2)


def test_vertex_colours_of_an_obj_show_through_default_materials(render, tmp_path):
    """MeshLab writes a white material beside vertex colours, Blender its default grey."""
    for name, colour in {"white": "1 1 1", "grey": "0.8 0.8 0.8", "green": "0 1 0"}.items():
        (tmp_path / f"{name}.mtl").write_text(f"newmtl m\nKd {colour}\n")
        (tmp_path / f"{name}.obj").write_text(f"mtllib {name}.mtl\nusemtl m\n" + obj([UNIT] * 4))
    (tmp_path / "undefined.obj").write_text("usemtl m\n" + obj([UNIT] * 4))
    for name, colour in {"white": COLOUR, "grey": COLOUR, "undefined": COLOUR, "green": (0, 255, 0)}.items():
        found = np.median(albedo(render(tmp_path / f"{name}.obj", **TINY)), axis=0)
        np.testing.assert_allclose(found, colour, atol=2, err_msg=name)


UV = ((0, 0), (1, 0), (0, 1), (1, 1))
WEDGES = [(6, *(number for corner in face for number in UV[corner])) for face in FACES]
TEXTURED = {
    **{
        f"{u}.ply": ply(f"float {u},float {v}", "", rows(CORNERS, UV), rows(TRIANGLES), "TextureFile paint.png")
        for u, v in (("s", "t"), ("u", "v"), ("texture_u", "texture_v"))
    },
    "wedges.ply": ply(
        "", "list uchar float texcoord,int texnumber", rows(CORNERS), rows(TRIANGLES, WEDGES, [(0,)] * 4),
        "TextureFile paint.png",
    ),
    "coloured_wedges.ply": ply(
        colours("uchar"), "list uchar float texcoord", rows(CORNERS, [COLOUR] * 4), rows(TRIANGLES, WEDGES),
        "TextureFile paint.png",
    ),
}  # fmt: skip
TEXTURED_OBJ = (
    "".join(f"v {row}" for row in rows(CORNERS).splitlines(keepends=True))
    + "".join(f"vt {row}" for row in rows(UV).splitlines(keepends=True))
    + "".join(f"f {a + 1}/{a + 1} {b + 1}/{b + 1} {c + 1}/{c + 1}\n" for a, b, c in FACES)
)
MTL = "newmtl m\nKd 1 1 1\nmap_Kd paint.png\n"
BOM = "\ufeff"
OBJS = {  # the text before the vertices, and the material library
    "no_usemtl": ("mtllib paint.mtl\n", MTL),
    "no_usemtl_in_an_object": ("mtllib paint.mtl\no part\n", MTL + "newmtl other\nKd 0 1 0\n"),
    "mark": (BOM + "mtllib paint.mtl\nusemtl m\n", MTL),
    "mark_in_the_library": ("mtllib paint.mtl\nusemtl m\n", BOM + MTL),
    "mark_and_no_usemtl": (BOM + "mtllib paint.mtl\n", BOM + MTL),
    "mark_before_a_vertex": (BOM, MTL),
}


@pytest.fixture
def paint(tmp_path):
    """Write a texture with a red left half and a blue right half."""
    picture = Image.new("RGB", (8, 8), BLUE)
    picture.paste(RED, (0, 0, 4, 8))
    picture.save(tmp_path / "paint.png")
    return tmp_path


@pytest.mark.parametrize("name", TEXTURED)
def test_the_texture_that_a_ply_names_is_drawn(render, paint, name):
    (paint / name).write_text(TEXTURED[name])
    assert min(shares(albedo(render(paint / name, **TINY)))) > 0.1


def test_degenerate_faces_do_not_shift_the_texture_of_a_ply(render, paint):
    good, *rest = (line for line in rows(TRIANGLES, WEDGES).splitlines(keepends=True))
    bad = "3 1 1 2 6 0 0 0 0 0 0\n"
    text = ply("", "list uchar float texcoord", rows(CORNERS), good + bad + "".join(rest), "TextureFile paint.png")
    for name, content in {"good": TEXTURED["wedges.ply"], "bad": text.replace("face 4", "face 5")}.items():
        (paint / f"{name}.ply").write_text(content)
    good, bad = (albedo(render(paint / f"{name}.ply", **TINY)) for name in ("good", "bad"))
    np.testing.assert_array_equal(good, bad)


@pytest.mark.parametrize(("name", "reason"), [("nowhere.png", "incomplete"), ("../../secret.png", "external")])
def test_the_texture_of_a_ply_is_checked_like_any_other(render, paint, name, reason):
    (paint / "a.ply").write_text(TEXTURED["s.ply"].replace("paint.png", name))
    with pytest.raises(RenderFailure) as failure:
        render(paint / "a.ply", **TINY)
    assert failure.value.reason == reason


@pytest.mark.parametrize("name", OBJS)
def test_the_material_library_of_an_obj_is_drawn(render, paint, name):
    head, library = OBJS[name]
    (paint / "paint.mtl").write_text(library)
    (paint / "paint.obj").write_text(head + TEXTURED_OBJ)
    assert min(shares(albedo(render(paint / "paint.obj", **TINY)))) > 0.1


def test_a_line_may_name_several_material_libraries(render, paint):
    (paint / "paint.mtl").write_text(MTL)
    (paint / "plain.mtl").write_text("newmtl plain\nKd 0 1 0\n")
    (paint / "part.obj").write_text("mtllib plain.mtl paint.mtl\nusemtl m\n" + TEXTURED_OBJ)
    assert min(shares(albedo(render(paint / "part.obj", **TINY)))) > 0.1
