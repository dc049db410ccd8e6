"""Hidden parts are neither drawn nor measured; instances are drawn and measured once."""

import numpy as np
import pytest

from rendering.failure import RenderFailure
from tests.support.parts import QUADS, Part, usd, usd_box, write_glb

SMALL = {"resolution": 48, "views": 3, "samples": 1}


def agree(first, second):
    """Check that both results are equal up to the rounding of float32 transforms."""
    np.testing.assert_allclose(first.meta["scale"], second.meta["scale"], rtol=1e-5)
    np.testing.assert_allclose(first.meta["offset"], second.meta["offset"], atol=1e-4)
    assert first.pixels[..., 3].max() == 255
    assert np.abs(first.pixels.astype(int) - second.pixels).mean() < 0.2


@pytest.fixture
def usd_views(render, tmp_path):
    def views(body: str, beside: str = "", **settings):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.usda"
        path.write_text(usd(body) + beside)
        return render(path, **SMALL | settings)

    return views


MOVED = 'double3 xformOp:translate = ({}, 0, 0)\nuniform token[] xformOpOrder = ["xformOp:translate"]'


def instance(name, reference, x):
    head = f'def Xform "{name}" (\ninstanceable = true\nprepend references = </{reference}>\n)'
    return f"{head}\n{{\n{MOVED.format(x)}\n}}\n"


def test_instanceable_prims_are_drawn_at_their_place(usd_views):
    """They lie far from the origin, with an instance within an instance and a mesh beside them."""
    leaf = f'class Xform "leaf"\n{{\n{usd_box("leaf", place=(0, 2, 0))}\n}}\n'
    proto = f'class Xform "proto"\n{{\n{usd_box("box", place=(0, 0, 2))}\n{instance("sub", "leaf", 1)}\n}}\n'
    move = MOVED.format(100)
    instances = usd_views(
        move + "\n" + instance("a", "proto", 0) + instance("b", "proto", 6) + usd_box("plain", place=(3, 3, 0)),
        proto + leaf,
    )
    boxes = [(0, 0, 2), (1, 2, 0), (6, 0, 2), (7, 2, 0), (3, 3, 0)]
    agree(instances, usd_views("\n".join([move, *(usd_box(f"b{n}", place=at) for n, at in enumerate(boxes))])))


def test_a_point_instancer_draws_its_instances_and_not_its_prototypes(usd_views):
    """Instances are moved, rotated, scaled, of two prototypes, invisible and inactive, beside a mesh."""
    instancer = f"""
def PointInstancer "instancer" (inactiveIds = [14])
{{
point3f[] positions = [(-2, 0, 0), (0, 0, 0), (2, 0, 1), (50, 0, 0), (0, 50, 0)]
quath[] orientations = [(1, 0, 0, 0), (0.7071, 0, 0.7071, 0), (1, 0, 0, 0), (1, 0, 0, 0), (1, 0, 0, 0)]
float3[] scales = [(1, 1, 1), (1, 1, 1), (1, 1, 2), (1, 1, 1), (1, 1, 1)]
int[] protoIndices = [0, 1, 0, 0, 0]
int64[] ids = [10, 11, 12, 13, 14]
int64[] invisibleIds = [13]
rel prototypes = [</root/instancer/prototypes/box>, </root/instancer/prototypes/rod>]
def "prototypes"
{{
{usd_box("box")}
{usd_box("rod", size=(0.3, 0.3, 3))}
}}
}}
"""
    beside = usd_box("beside", place=(0, 3, 0))
    truth = [
        usd_box("a", place=(-2, 0, 0)),
        usd_box("b", size=(3, 0.3, 0.3)),
        usd_box("c", place=(2, 0, 1), size=(1, 1, 2)),
        beside,
    ]
    agree(usd_views(instancer + beside), usd_views("\n".join(truth)))
    alone = usd_views(instancer)
    agree(alone, usd_views("\n".join(truth[:3])))


def test_a_point_instancer_in_the_prototypes_of_another_is_refused(usd_views):
    """Blender draws the inner instances in other places."""

    def instancer(name, prototype, body):
        return f"""
def PointInstancer "{name}"
{{
point3f[] positions = [(0, 0, 0), (4, 0, 0)]
int[] protoIndices = [0, 0]
rel prototypes = [<{prototype}>]
{body}
}}
"""

    inner = instancer("inner", "/root/outer/inner/box", usd_box("box"))
    with pytest.raises(RenderFailure) as caught:
        usd_views(instancer("outer", "/root/outer/inner", inner))
    assert caught.value.reason == "unreadable"


def test_hidden_prims_of_a_usd_are_not_drawn(usd_views):
    hidden = [
        usd_box("gone", 'token visibility = "invisible"', place=(9, 0, 0)),
        usd_box("guide", 'uniform token purpose = "guide"', place=(0, 9, 0)),
        usd_box("proxy", 'uniform token purpose = "proxy"', place=(0, 0, 9)),
        f'def Xform "group"\n{{\ntoken visibility = "invisible"\n{usd_box("child", place=(0, -9, 0))}\n}}',
    ]
    agree(usd_views("\n".join([usd_box("box"), *hidden])), usd_views(usd_box("box")))


@pytest.mark.parametrize("required", [False, True])
def test_invisible_nodes_of_a_gltf_are_not_drawn(render, tmp_path, required):
    """An invisible node hides its children."""
    invisible = {"extensions": {"KHR_node_visibility": {"visible": False}}}
    far = np.array([0.0, 9.0, 0.0])
    used = {"extensionsUsed": ["KHR_node_visibility"]} | (
        {"extensionsRequired": ["KHR_node_visibility"]} if required else {}
    )
    hidden = write_glb(
        tmp_path / "hidden.glb",
        Part(node={"extensions": {"KHR_node_visibility": {"visible": True}}}),
        Part(node=invisible | {"translation": [9, 0, 0], "children": [2]}),
        Part(points=(Part().points + far).astype("<f4")),
        **used,
        scenes=[{"nodes": [0, 1]}],
    )
    agree(render(hidden, **SMALL), render(write_glb(tmp_path / "plain.glb", Part()), **SMALL))


@pytest.fixture(scope="module")
def fbx(blender_script, tmp_path_factory):
    """Write a box alone; beside a hidden box and a hidden group; deformed by a hidden rig; and hidden."""
    folder = tmp_path_factory.mktemp("fbx")
    blender_script(f"""
bpy.ops.wm.read_factory_settings(use_empty=True)
def box(name, place, parent=None, hidden=False):
    bpy.ops.mesh.primitive_cube_add(size=1, location=place)
    part = bpy.context.object
    part.name, part.parent = name, parent
    part.hide_viewport = hidden
    return part
def save(name):
    bpy.ops.export_scene.fbx(filepath={str(folder)!r} + "/" + name + ".fbx", add_leaf_bones=False)
box("box", (0, 0, 0))
save("plain")
box("gone", (9, 0, 0), hidden=True)
bpy.ops.object.empty_add()
group = bpy.context.object
box("child", (0, 9, 0), parent=group)
group.hide_viewport = True
save("hidden")
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.ops.object.armature_add()
rig = bpy.context.object
rigged = box("box", (0, 0, 0), parent=rig)
rigged.vertex_groups.new(name="Bone").add(list(range(8)), 1, "REPLACE")
rigged.modifiers.new("rig", "ARMATURE").object = rig
rig.hide_viewport = True
save("rigged")
rigged.hide_viewport = True
save("nothing")
""")
    return folder


def test_hidden_parts_of_an_fbx_are_not_drawn(render, fbx):
    plain = render(fbx / "plain.fbx", **SMALL)
    agree(render(fbx / "hidden.fbx", **SMALL), plain)
    agree(render(fbx / "rigged.fbx", **SMALL), plain)
    with pytest.raises(RenderFailure, match="no_mesh"):
        render(fbx / "nothing.fbx", **SMALL)


LINES = {
    "lines.obj": "v -0.5 9 0\nv 9 -9 0\nv 3 0 99\nl 9 10\np 11\n",
    "loose.obj": "v 99 0 0\nv 0 99 0\n",
}


@pytest.mark.parametrize("name", LINES)
def test_lines_and_loose_vertices_are_not_measured(render, tmp_path, name):
    box = "".join(f"v {x} {y} {z}\n" for x, y, z in Part().points)
    faces = "".join(f"f {a} {b} {c} {d}\n" for a, b, c, d in QUADS + 1)
    (tmp_path / "plain.obj").write_text(box + faces)
    (tmp_path / name).write_text(box + LINES[name] + faces)
    agree(render(tmp_path / name, **SMALL), render(tmp_path / "plain.obj", **SMALL))


def test_points_and_curves_of_a_usd_are_not_measured(usd_views):
    points = 'def Points "dust"\n{\npoint3f[] points = [(9, 0, 0), (0, 9, 0)]\nfloat[] widths = [1, 1]\n}\n'
    curve = (
        'def BasisCurves "wire"\n{\nint[] curveVertexCounts = [2]\npoint3f[] points = [(9, 0, 0), (0, 9, 0)]\n'
        'uniform token type = "linear"\nfloat[] widths = [1, 1]\n}\n'
    )
    agree(usd_views(usd_box("box") + "\n" + points + curve), usd_views(usd_box("box")))


@pytest.mark.parametrize(("mode", "corners"), [(0, 3), (1, 2), (2, 3), (3, 3)])
def test_points_and_lines_of_a_gltf_are_not_measured(render, tmp_path, mode, corners):
    points = np.array([[0, 0, 0], [9, 0, 0], [0, 9, 0]], dtype="<f4")
    far = Part(points=points, faces=np.arange(corners), flat=False, mode=mode)
    lines = write_glb(tmp_path / "lines.glb", Part(), far)
    agree(render(lines, **SMALL), render(write_glb(tmp_path / "plain.glb", Part()), **SMALL))
