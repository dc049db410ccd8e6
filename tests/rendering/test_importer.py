"""Import: meshes only, in the pose of frame 1, and no file outside the allowed folders."""

import io
import json
import socket
import subprocess
import sys

import numpy as np
import pytest
import trimesh
from PIL import Image

from rendering.asset_validation import CHECKS
from rendering.failure import RenderFailure
from rendering.formats import SUFFIXES
from tests.support.bad_assets import dae, glb, picture, tetrahedron
from tests.support.parts import usd, usd_box

SMALL = {"resolution": 64, "views": 3, "samples": 1}

ANIMATED = """
import bmesh, math
bpy.ops.wm.read_factory_settings(use_empty=True)
scene = bpy.context.scene
bpy.ops.mesh.primitive_cube_add(location=(0, 0, 1))
cube = bpy.context.object
cube.scale = (0.2, 0.3, 1)
bpy.ops.object.transform_apply(location=True, scale=True)
bpy.ops.object.mode_set(mode="EDIT")
bpy.ops.mesh.select_all(action="SELECT")
bpy.ops.mesh.subdivide(number_cuts=8)
bpy.ops.object.mode_set(mode="OBJECT")
bpy.ops.object.armature_add()
rig = bpy.context.object
bpy.ops.object.mode_set(mode="EDIT")
bone = rig.data.edit_bones[0]
bone.head, bone.tail = (0, 0, 0), (0, 0, 1)
upper = rig.data.edit_bones.new("upper")
upper.head, upper.tail, upper.parent = (0, 0, 1), (0, 0, 2), bone
bpy.ops.object.mode_set(mode="OBJECT")
for index, vertex in enumerate(cube.data.vertices):
    name = "upper" if vertex.co.z > 1 else "Bone"
    (cube.vertex_groups.get(name) or cube.vertex_groups.new(name=name)).add([index], 1, "REPLACE")
cube.parent = rig
cube.modifiers.new("rig", "ARMATURE").object = rig
pose = rig.pose.bones["upper"]
pose.rotation_mode = "XYZ"
scene.frame_start, scene.frame_end = 1, 20
for frame, angle in ((1, 80), (10, -80), (20, 0)):
    pose.rotation_euler = (math.radians(angle), 0, 0)
    pose.keyframe_insert("rotation_euler", frame=frame)
"""


@pytest.fixture(scope="module")
def animated(blender_script, tmp_path_factory):
    """Write a bending rod as animated GLB and FBX, and static: bent as in frame 1, and straight."""
    folder = tmp_path_factory.mktemp("animated")
    blender_script(
        ANIMATED
        + f"""
to = {str(folder)!r}
scene.frame_set(20)
bpy.ops.export_scene.gltf(filepath=to + "/rod.glb")
bpy.ops.export_scene.fbx(filepath=to + "/rod.fbx", add_leaf_bones=False)
for name, frame in (("bent", 1), ("straight", 20)):
    scene.frame_set(frame)
    still = bpy.data.meshes.new_from_object(cube.evaluated_get(bpy.context.evaluated_depsgraph_get()))
    thing = bpy.data.objects.new(name, still)
    scene.collection.objects.link(thing)
    bpy.ops.object.select_all(action="DESELECT")
    thing.select_set(True)
    bpy.ops.export_scene.gltf(filepath=f"{{to}}/{{name}}.glb", use_selection=True, export_animations=False)
"""
    )
    return folder


def overlap(first, second):
    first, second = first.pixels[..., 3] > 127, second.pixels[..., 3] > 127
    return (first & second).sum() / (first | second).sum()


@pytest.mark.parametrize("name", ["rod.glb", "rod.fbx"])
def test_a_rigged_and_animated_object_has_the_pose_of_frame_1(render, animated, name):
    moving = render(animated / name, **SMALL)
    assert overlap(moving, render(animated / "bent.glb", **SMALL)) > 0.95
    assert overlap(moving, render(animated / "straight.glb", **SMALL)) < 0.8


@pytest.mark.parametrize("suffix", ["glb", "fbx", "usdc", "dae"])
def test_lights_cameras_and_empties_of_an_asset_change_nothing(render, blender_script, tmp_path, suffix):
    blender_script(f"""
bpy.ops.wm.read_factory_settings(use_empty=True)
def save(name):
    path = {str(tmp_path)!r} + "/" + name + ".{suffix}"
    match "{suffix}":
        case "glb": bpy.ops.export_scene.gltf(filepath=path, export_lights=True, export_cameras=True)
        case "fbx": bpy.ops.export_scene.fbx(filepath=path)
        case "usdc": bpy.ops.wm.usd_export(filepath=path)
        case "dae": bpy.ops.wm.collada_export(filepath=path)
bpy.ops.mesh.primitive_monkey_add()
save("plain")
bpy.ops.object.light_add(type="SUN")
bpy.context.object.data.energy = 1000
bpy.ops.object.light_add(type="POINT", location=(2, 2, 2))
bpy.context.object.data.energy = 1e5
bpy.ops.object.camera_add(location=(50, 0, 0))
bpy.context.scene.camera = bpy.context.object
bpy.ops.object.empty_add(location=(0, 90, 0))
world = bpy.context.scene.world = bpy.data.worlds.new("red")
world.use_nodes = True
world.node_tree.nodes["Background"].inputs[0].default_value = (1, 0, 0, 1)
save("crowded")
""")
    plain, crowded = (render(tmp_path / f"{name}.{suffix}", **SMALL) for name in ("plain", "crowded"))
    np.testing.assert_array_equal(plain.pixels, crowded.pixels)


@pytest.mark.parametrize(("up", "offset"), [("Z_UP", [-0.5, -1, -1.5]), ("Y_UP", [-0.5, 1.5, -1])])
def test_collada_up_axis_and_unit_are_applied(render, tmp_path, up, offset):
    """A tetrahedron of 1 x 2 x 3 centimetres."""
    (tmp_path / "a.dae").write_text(dae(up=up).replace('meter="1"', 'meter="0.01"'))
    meta = render(tmp_path / "a.dae", **SMALL).meta
    assert meta["scale"] == pytest.approx(100 / 3, rel=1e-4)
    np.testing.assert_allclose(meta["offset"], np.array(offset) / 100, atol=1e-6)


@pytest.mark.parametrize(
    ("body", "flat"),
    [
        (usd_box("box"), True),
        (usd_box("box").replace('"none"', '"catmullClark"'), False),
        (usd_box("box", "normal3f[] normals = [" + ", ".join(["(0, 0.6, 0.8)", "(0.6, 0, 0.8)"] * 4) + "]"), False),
        ('def Sphere "ball"\n{\ndouble radius = 1\n}', False),
    ],
)
def test_a_usd_mesh_of_polygons_without_normals_has_flat_faces(render, tmp_path, body, flat):
    (tmp_path / "a.usda").write_text(usd(body))
    views = render(tmp_path / "a.usda", **SMALL, passes=["normal"])
    normals = np.asarray(Image.open(io.BytesIO(views.files["000.normal.webp"])))[..., :3].reshape(-1, 3)
    assert (len(np.unique(normals, axis=0)) <= 4) == flat  # the background and at most three faces


@pytest.mark.parametrize("header", [b"exported", b"solid exported"])
def test_bytes_after_the_triangles_of_a_binary_stl_are_ignored(render, tmp_path, header):
    trimesh.creation.box().export(tmp_path / "exact.stl")
    content = (tmp_path / "exact.stl").read_bytes()
    (tmp_path / "longer.stl").write_bytes(header.ljust(80) + content[80:] + b"made by hand")
    exact, longer = (render(tmp_path / f"{name}.stl", **SMALL).pixels for name in ("exact", "longer"))
    np.testing.assert_array_equal(exact, longer)


def test_a_missing_texture_is_named(render, tmp_path):
    document, data = tetrahedron(image=b"broken")
    (tmp_path / "a.glb").write_bytes(glb(document, data))
    with pytest.raises(RenderFailure, match="incomplete.*paint"):
        render(tmp_path / "a.glb", **SMALL)


def test_a_damaged_image_that_is_not_drawn_is_ignored(render, tmp_path):
    document, data = tetrahedron(image=b"broken")
    del document["materials"][0]["pbrMetallicRoughness"]
    (tmp_path / "a.glb").write_bytes(glb(document, data))
    render(tmp_path / "a.glb", **SMALL)


@pytest.fixture
def painted_fbx(blender_script, tmp_path):
    """Write an FBX in its own folder, and its texture in another one, referred to by an absolute path."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "own").mkdir()
    secret = tmp_path / "elsewhere/paint.png"
    secret.write_bytes(picture())
    blender_script(f"""
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.ops.mesh.primitive_cube_add()
material = bpy.data.materials.new("paint")
material.use_nodes = True
node = material.node_tree.nodes.new("ShaderNodeTexImage")
node.image = bpy.data.images.load({str(secret)!r})
shader = material.node_tree.nodes["Principled BSDF"]
material.node_tree.links.new(node.outputs[0], shader.inputs["Base Color"])
bpy.context.object.data.materials.append(material)
bpy.ops.export_scene.fbx(filepath={str(tmp_path / "own/a.fbx")!r}, path_mode="ABSOLUTE")
""")
    return tmp_path / "own/a.fbx"


def test_textures_of_an_fbx_are_found_beside_it_only(render, painted_fbx):
    with pytest.raises(RenderFailure, match="incomplete.*paint"):
        render(painted_fbx, **SMALL)
    Image.new("RGB", (8, 8), (0, 0, 255)).save(painted_fbx.parent / "paint.png")
    pixels = render(painted_fbx, **SMALL).pixels
    red, _, blue = pixels[pixels[..., 3] == 255][:, :3].mean(axis=0)
    assert blue > 2 * red, "blue is what lies beside it, red what it points to"


CONFINED = """
import json, socket, sys
from rendering.sandbox import enter_sandbox
inside, outside, scratch, port = sys.argv[1:]
if not enter_sandbox([inside], scratch):
    sys.exit(77)
import bpy
def tried(action):
    try:
        action()
        return "done"
    except (PermissionError, RuntimeError) as error:
        return type(error).__name__
print(json.dumps({
    "read inside": tried(lambda: open(inside + "/paint.png", "rb").read()),
    "picture inside": tried(lambda: bpy.data.images.load(inside + "/paint.png")),
    "write scratch": tried(lambda: open(scratch + "/a", "w").write("a")),
    "read outside": tried(lambda: open(outside + "/paint.png", "rb").read()),
    "picture outside": tried(lambda: bpy.data.images.load(outside + "/paint.png")),
    "list outside": tried(lambda: __import__("os").listdir(outside)),
    "write outside": tried(lambda: open(outside + "/a", "w")),
    "write inside": tried(lambda: open(inside + "/a", "w")),
    "passwords": tried(lambda: open("/etc/passwd").read()),
    "connect": tried(lambda: socket.create_connection(("127.0.0.1", int(port)), 2)),
    "through a program": tried(lambda: __import__("subprocess").check_call(["/bin/true"])),
}), file=sys.stderr)
"""


def test_the_sandbox_limits_blender_to_its_folders(tmp_path, renderer):
    for name in ("inside", "outside", "scratch"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "paint.png").write_bytes(picture())
    places = [str(tmp_path / name) for name in ("inside", "outside", "scratch")]
    with socket.create_server(("127.0.0.1", 0)) as server:
        run = subprocess.run(
            [sys.executable, "-c", CONFINED, *places, str(server.getsockname()[1])],
            env={"PYTHONPATH": ".", "TMPDIR": places[2]},
            capture_output=True,
            text=True,
        )
    if run.returncode == 77:
        pytest.skip("this kernel has no Landlock")
    found = json.loads(run.stderr.strip().splitlines()[-1])
    allowed = {"read inside", "picture inside", "write scratch", "through a program"}
    assert {name for name, result in found.items() if result == "done"} == allowed, found


def test_every_format_has_a_check():
    assert set(CHECKS) == set(SUFFIXES)
