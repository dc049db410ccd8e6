"""An asset can refer to files below the folder of its source only, by any path."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from rendering.asset_validation.references import asset_folders
from rendering.failure import RenderFailure
from rendering.settings import RenderSettings
from tests.support.bad_assets import USD, dae, glb, tetrahedron

BLUE, RED = (20, 20, 230), (230, 20, 20)
CORNERS = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
TRIANGLES = [(0, 1, 2), (0, 1, 3), (0, 2, 3), (1, 2, 3)]
MATERIAL_USDA = """
    rel material:binding = </root/paint>
    texCoord2f[] primvars:st = [(0, 0), (1, 0), (0, 1), (1, 1)] (interpolation = "vertex")
}}
def Material "paint"
{{
    token outputs:surface.connect = </root/paint/surface.outputs:surface>
    def Shader "surface"
    {{
        uniform token info:id = "UsdPreviewSurface"
        color3f inputs:diffuseColor.connect = </root/paint/file.outputs:rgb>
        token outputs:surface
    }}
    def Shader "file"
    {{
        uniform token info:id = "UsdUVTexture"
        asset inputs:file = @{path}@
        float2 inputs:st.connect = </root/paint/st.outputs:result>
        float3 outputs:rgb
    }}
    def Shader "st"
    {{
        uniform token info:id = "UsdPrimvarReader_float2"
        string inputs:varname = "st"
        float2 outputs:result
    }}
"""


def paint(path, colour):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), colour).save(path)


def write_obj(folder, path):
    lines = ["mtllib paint.mtl", *("v {} {} {}".format(*corner) for corner in CORNERS)]
    lines += ["vt 0 0", "vt 1 0", "vt 0 1", "vt 1 1", "usemtl paint"]
    lines += ["f " + " ".join(f"{i + 1}/{i + 1}" for i in triangle) for triangle in TRIANGLES]
    (folder / "a.obj").write_text("\n".join(lines))
    (folder / "paint.mtl").write_text(f"newmtl paint\nKd 1 1 1\nmap_Kd -s 1 1 1 {path}\nillum 1\n")
    return folder / "a.obj"


def write_gltf(folder, path, suffix="gltf"):
    document, data = tetrahedron()
    document["images"] = [{"uri": path}]
    if suffix == "glb":
        (folder / "a.glb").write_bytes(glb(document, data))
    else:
        document["buffers"][0]["uri"] = "a.bin"
        (folder / "a.bin").write_bytes(data)
        (folder / "a.gltf").write_text(json.dumps(document))
    return folder / f"a.{suffix}"


def write_dae(folder, path):
    head = f"""<library_images><image id="i"><init_from>{path}</init_from></image></library_images>
<library_effects><effect id="e"><profile_COMMON>
<newparam sid="f"><surface type="2D"><init_from>i</init_from></surface></newparam>
<newparam sid="s"><sampler2D><source>f</source></sampler2D></newparam>
<technique sid="t"><lambert><diffuse><texture texture="s" texcoord="uv"/></diffuse></lambert></technique>
</profile_COMMON></effect></library_effects>
<library_materials><material id="m"><instance_effect url="#e"/></material></library_materials>"""
    text = dae(images=head)
    text = text.replace(
        "<vertices",
        """<source id="u"><float_array id="ua" count="8">0 0 1 0 0 1 1 1</float_array><technique_common>
<accessor source="#ua" count="4" stride="2"><param name="S" type="float"/><param name="T" type="float"/></accessor>
</technique_common></source><vertices""",
    )
    text = text.replace('<triangles count="4">', '<triangles count="4" material="paint">')
    text = text.replace('offset="0"/><p>', 'offset="0"/><input semantic="TEXCOORD" source="#u" offset="0" set="0"/><p>')
    text = text.replace(
        '<instance_geometry url="#g"/>',
        """<instance_geometry url="#g"><bind_material><technique_common><instance_material symbol="paint" target="#m">
<bind_vertex_input semantic="uv" input_semantic="TEXCOORD" input_set="0"/></instance_material></technique_common>
</bind_material></instance_geometry>""",
    )
    (folder / "a.dae").write_text(text)
    return folder / "a.dae"


def write_usda(folder, path):
    mesh = """int[] faceVertexCounts = [3, 3, 3, 3]
    int[] faceVertexIndices = [0, 1, 2, 0, 1, 3, 0, 2, 3, 1, 2, 3]
    point3f[] points = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]"""
    start, end = USD.index("int[] faceVertexCounts"), USD.index("    {inside}")
    text = USD[:start] + mesh + "\n" + USD[end:]
    (folder / "a.usda").write_text(text.format(layer="", prim="", inside=MATERIAL_USDA.format(path=path)))
    return folder / "a.usda"


def write_glb(folder, path):
    return write_gltf(folder, path, "glb")


@pytest.fixture
def source(tmp_path):
    """Make a folder of objects with `models/`, and beside it `secret/t x.png` and `secret/pipe.png`, a pipe."""
    (tmp_path / "objects/models").mkdir(parents=True)
    paint(tmp_path / "secret/t x.png", RED)
    os.mkfifo(tmp_path / "secret/pipe.png")
    return tmp_path / "objects"


@pytest.fixture
def drawn(renderer, tmp_path_factory):
    """Render one view of an asset below a root, and return its mean colour."""

    def drawn(asset, root):
        folder = tmp_path_factory.mktemp("views")
        renderer.render(asset, RenderSettings(resolution=32, views=1, samples=4), 0, folder, root)
        assert sorted(path.name for path in folder.iterdir()) == ["000.webp", "cameras.npy"]
        pixels = np.asarray(Image.open(folder / "000.webp"))
        return pixels[pixels[..., 3] == 255][:, :3].mean(axis=0)

    return drawn


def is_blue(colour):
    red, green, blue = colour
    return blue > 3 * red and blue > 3 * green


WRITERS = {"obj": write_obj, "gltf": write_gltf, "glb": write_glb, "dae": write_dae, "usda": write_usda}


@pytest.fixture(params=WRITERS)
def write(request):
    """Write a textured tetrahedron of one format into a folder, with the given path of its texture."""

    def write(folder, path):
        return WRITERS[request.param](folder, path if request.param in ("obj", "usda") else path.replace(" ", "%20"))

    return write


def test_a_texture_in_a_sibling_folder_is_drawn_if_the_source_contains_both(drawn, write, source):
    paint(source / "images/t x.png", BLUE)
    for path in ("../images/t x.png", "..\\images\\t x.png", "../Images/T x.PNG"):
        assert is_blue(drawn(write(source / "models", path), source)), path
    with pytest.raises(RenderFailure, match="external"):
        (source / "images").rename(source.parent / "images")
        drawn(write(source / "models", "../../images/t x.png"), source)


def test_an_absolute_path_stands_for_the_texture_of_that_name_beside_the_asset(drawn, write, source):
    secret = source.parent / "secret"
    paint(source / "models/t x.png", BLUE)
    paint(source / "models/pipe.png", BLUE)
    for path in (
        f"{secret}/t x.png",
        f"{secret}/pipe.png",
        f"file://{secret}/t%20x.png",
        "../../secret/t x.png",
        "C:\\Users\\me\\T X.PNG",
        "file:///C:/Users/me/t%20x.png",
        "\\\\server\\share\\t x.png",
        "~/t x.png",
    ):
        assert is_blue(drawn(write(source / "models", path), source)), path


@pytest.mark.parametrize("name", ["t x.png", "t#1.png", "t?.png", "ü&amp;100%.png", "\n  pretty.png\n"])
def test_a_collada_path_that_is_not_a_uri_is_accepted(drawn, source, name):
    paint(source / "models" / name.strip().replace("&amp;", "&"), BLUE)
    assert is_blue(drawn(write_dae(source / "models", name), source))


def test_files_outside_the_source_are_refused(drawn, write, source):
    secret = source.parent / "secret"
    (source / "models/up").symlink_to("../..")
    (source / "models/t x.png").symlink_to(secret / "t x.png")
    for path in (f"{secret}/t x.png", "../../secret/t x.png", "up/secret/t x.png", "t x.png", "http://a.b/t x.png"):
        with pytest.raises(RenderFailure) as failure:
            drawn(write(source / "models", path), source)
        assert failure.value.reason == "external", path


def test_a_folder_that_is_linked_into_the_source_is_part_of_it(drawn, write, source, tmp_path):
    (tmp_path / "store/chair/models").mkdir(parents=True)
    paint(tmp_path / "store/chair/images/t x.png", BLUE)
    asset = write(tmp_path / "store/chair/models", "../images/t x.png")
    (source / "linked").symlink_to(tmp_path / "store")
    assert is_blue(drawn(source / "linked/chair/models" / asset.name, source))
    (source / "linked_deeper").symlink_to(tmp_path / "store/chair/models")
    with pytest.raises(RenderFailure, match="external"):
        drawn(source / "linked_deeper" / asset.name, source)


def test_other_references_are_kept_beside_a_redirected_one(drawn, source):
    """The library lies above the asset; one map is absolute, one relative, one absolute and not drawn."""
    models = source / "models"
    asset = write_obj(models, "")
    asset.write_text(asset.read_text().replace("paint.mtl", "../shared.mtl").replace("usemtl paint", "usemtl first", 1))
    text = asset.read_text().splitlines()
    asset.write_text("\n".join([*text[:-2], "usemtl second", *text[-2:]]))
    (source / "shared.mtl").write_text(
        "newmtl first\nmap_Kd D:\\first.png\nillum 1\nnewmtl second\nmap_Kd maps/second.png\nillum 1\n"
        f"newmtl unused\nmap_Kd {source.parent}/secret/pipe.png\n"
    )
    paint(source / "first.png", BLUE)
    paint(source / "maps/second.png", BLUE)
    assert is_blue(drawn(asset, source))
    (source / "maps/second.png").unlink()
    with pytest.raises(RenderFailure, match=r"incomplete.*second\.png"):
        drawn(asset, source)


def test_layers_of_a_usd_are_redirected_too(drawn, source):
    (source / "models/parts").mkdir()
    part = write_usda(source / "models/parts", f"{source.parent}/secret/pipe.png")
    paint(part.parent / "pipe.png", BLUE)
    (source / "models/b.usda").write_text("#usda 1.0\n(\n    subLayers = [@C:\\me\\c.usda@]\n)\n")
    (source / "models/c.usda").write_text("#usda 1.0\n(\n    subLayers = [@./parts/a.usda@]\n)\n")
    assert is_blue(drawn(source / "models/b.usda", source))


def test_relative_textures_of_an_fbx_may_lie_in_a_sibling_folder(drawn, blender_script, source):
    paint(source / "images/paint.png", BLUE)
    blender_script(f"""
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.ops.mesh.primitive_cube_add()
material = bpy.data.materials.new("paint")
material.use_nodes = True
node = material.node_tree.nodes.new("ShaderNodeTexImage")
node.image = bpy.data.images.load({str(source / "images/paint.png")!r})
shader = material.node_tree.nodes["Principled BSDF"]
material.node_tree.links.new(node.outputs[0], shader.inputs["Base Color"])
bpy.context.object.data.materials.append(material)
bpy.ops.export_scene.fbx(filepath={str(source / "models/a.fbx")!r}, path_mode="RELATIVE")
""")
    assert is_blue(drawn(source / "models/a.fbx", source))
    with pytest.raises(RenderFailure, match="incomplete.*paint"):
        drawn(source / "models/a.fbx", source / "models")


def test_asset_folders_include_the_targets_of_links(tmp_path):
    (tmp_path / "store/chair").mkdir(parents=True)
    (tmp_path / "objects/kitchen").mkdir(parents=True)
    (tmp_path / "objects/kitchen/more").symlink_to(tmp_path / "store")
    (tmp_path / "store/chair/a.glb").symlink_to(tmp_path / "b.glb")
    folders = asset_folders(tmp_path / "objects/kitchen/more/chair/a.glb", tmp_path / "objects")
    assert folders == tuple(
        tmp_path.resolve() / name for name in ("objects", "objects/kitchen", "store", "store/chair", "")
    )
