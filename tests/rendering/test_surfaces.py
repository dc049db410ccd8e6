"""Visible sides of faces: coincident faces, back faces, transparent layers; passes agree."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.support.parts import BLUE, BOX, GREEN, QUADS, RED, TRIANGLES, Part, write_glb

VIEWS = {"resolution": 48, "samples": 8, "cameras": "fixed", "views": 2, "poses": [[50, 30, 2], [130, 210, 2]]}
REVERSED = TRIANGLES[:, ::-1]
OTHER = np.concatenate([QUADS[:, [1, 2, 3]], QUADS[:, [1, 3, 0]]])[:, ::-1]
NAMES = {RED: 0, GREEN: 1, BLUE: 2}


def share(views, colour, view=slice(None)):
    """Return the part of the opaque pixels that are of `colour` and lit."""
    pixels = views.pixels[view][views.pixels[view][..., 3] == 255][:, :3].astype(int)
    other = np.delete(pixels, NAMES[colour], axis=1).max(axis=1)
    return (pixels[:, NAMES[colour]] > np.maximum(2 * other, 25)).mean()


def doubled(folder, kind):
    """Write a box that is red outside and blue inside, the blue faces first in the file."""
    back, front = Part(faces=REVERSED, colour=BLUE), Part(colour=RED)
    match kind:
        case "glb":
            return write_glb(folder / "a.glb", back, front, one_mesh=True)
        case "two meshes":
            return write_glb(folder / "a.glb", back, front)
        case "other triangles":
            return write_glb(folder / "a.glb", Part(faces=OTHER, colour=BLUE), front, one_mesh=True)
        case "shared vertices":
            parts = [Part(faces=part.faces, colour=part.colour, flat=False) for part in (back, front)]
            return write_glb(folder / "a.glb", *parts, one_mesh=True)
        case "obj" | "obj, shared vertices":
            first = 9 if kind == "obj" else 1
            points = "".join(f"v {x} {y} {z}\n" for x, y, z in [*BOX, *BOX][: first + 7])
            lines = {
                name: "".join("f " + " ".join(map(str, quad)) + "\n" for quad in quads)
                for name, quads in (("blue", QUADS[:, ::-1] + 1), ("red", QUADS + first))
            }
            (folder / "a.mtl").write_text("newmtl red\nKd 1 0 0\nnewmtl blue\nKd 0 0 1\n")
            text = "".join(f"usemtl {name}\n{faces}" for name, faces in lines.items())
            (folder / "a.obj").write_text(f"mtllib a.mtl\n{points}{text}")
            return folder / "a.obj"


@pytest.mark.parametrize(
    "kind", ["glb", "two meshes", "other triangles", "shared vertices", "obj", "obj, shared vertices"]
)
def test_of_coincident_faces_the_front_one_is_drawn(render, tmp_path, kind):
    assert share(render(doubled(tmp_path, kind), **VIEWS), RED) > 0.97


def test_a_repeated_face_is_drawn_in_the_first_colour(render, tmp_path):
    twice = write_glb(tmp_path / "a.glb", Part(colour=GREEN), Part(colour=BLUE), one_mesh=True)
    assert share(render(twice, **VIEWS), GREEN) > 0.97


@pytest.mark.parametrize("double_sided", [True, False])
def test_a_sheet_shows_a_colour_on_each_side(render, tmp_path, double_sided):
    """It is red from above and blue from below."""
    points = np.array([[-0.5, 0, -0.5], [0.5, 0, -0.5], [0.5, 0, 0.5], [-0.5, 0, 0.5]], dtype="<f4")  # y up
    up = np.array([[0, 2, 1], [0, 3, 2]])
    sides = [
        Part(points=points, faces=faces, colour=colour, double_sided=double_sided)
        for faces, colour in ((up, RED), (up[:, ::-1], BLUE))
    ]
    views = render(write_glb(tmp_path / "a.glb", *sides, one_mesh=True), **VIEWS)
    assert share(views, RED, 0) > 0.97 and share(views, BLUE, 1) > 0.97


HULL = [Part(points=0.9 * BOX), Part(faces=REVERSED, colour=BLUE, double_sided=False)]


@pytest.mark.parametrize("lighting", ["zero123", "uniform"])
def test_the_hull_of_an_outline_does_not_hide_the_object(render, tmp_path, lighting):
    """The box inside is lit as without the hull; around it the far side of the hull shows."""
    path = write_glb(tmp_path / "a.glb", *HULL)
    shown = render(path, lighting=lighting, **VIEWS)
    assert 0.5 < share(shown, RED) < 0.97
    assert share(render(path, lighting=lighting, cull_backfaces=False, **VIEWS), RED) == 0


def test_passes_ignore_culled_faces(render, tmp_path):
    views = render(write_glb(tmp_path / "a.glb", *HULL), passes=["depth", "mask", "albedo"], **VIEWS)
    albedo, depth, mask = (
        np.asarray(Image.open(io.BytesIO(views.files[f"000.{name}"])))
        for name in ("albedo.webp", "depth.png", "mask.png")
    )
    middle = (slice(20, 28), slice(20, 28))
    np.testing.assert_array_equal(np.unique(albedo[middle].reshape(-1, 4), axis=0), [[255, 0, 0, 255]])
    assert depth[middle].min() / 10_000 > 2 - 0.9 * 3**0.5 / 2  # of the box, not of the hull in front of it
    assert mask[middle].all()


def test_back_faces_of_single_sided_gltf_materials_are_culled(render, tmp_path):
    """A view into an open box: doubleSided shows its inside, single-sided does not."""
    open_box = TRIANGLES[np.abs(BOX[TRIANGLES].mean(axis=1)[:, 1] - 0.5) > 0.2]  # y up: without the lid
    assert len(open_box) == 10
    above = VIEWS | {"poses": [[0, 0, 2], [180, 0, 2]]}
    alpha = {}
    for double_sided in (True, False):
        part = Part(faces=open_box, double_sided=double_sided)
        alpha[double_sided] = render(write_glb(tmp_path / "a.glb", part), **above).pixels[0, 24, 24, 3]
    assert alpha == {True: 255, False: 0}


def test_closed_objects_do_not_depend_on_culling(render, tmp_path):
    box = write_glb(tmp_path / "a.glb", Part(double_sided=False))
    culled, drawn = (render(box, cull_backfaces=cull, **VIEWS) for cull in (True, False))
    assert culled.files == drawn.files


def leaves(path, layers):
    """Write fully transparent sheets behind each other, before a green one."""
    points = np.array([[-0.5, -0.5, 0], [0.5, -0.5, 0], [0.5, 0.5, 0], [-0.5, 0.5, 0]], dtype="<f4")
    sheets = [
        Part(points=(points - [0, 0, 0.02 * n]).astype("<f4"), faces=np.array([[0, 1, 2], [0, 2, 3]]), colour=GREEN)
        for n in range(layers + 1)
    ]
    holes = {"alphaMode": "MASK", "doubleSided": True, "pbrMetallicRoughness": {"baseColorFactor": [0, 0, 1, 0.2]}}
    green = {"doubleSided": True, "pbrMetallicRoughness": {"baseColorFactor": [0, 1, 0, 1], "metallicFactor": 0}}
    return write_glb(path, *sheets, materials=[holes] * layers + [green])


def test_rays_pass_many_transparent_layers(render, tmp_path):
    ahead = VIEWS | {"views": 1, "poses": [[90, -90, 2]]}  # a glTF's front
    path = leaves(tmp_path / "a.glb", 30)
    views = render(path, passes=["albedo", "depth"], **ahead)
    assert share(views, GREEN) > 0.97
    assert share(render(path, transparent_bounces=3, **ahead), GREEN) == 0
    albedo = np.asarray(Image.open(io.BytesIO(views.files["000.albedo.webp"])))
    np.testing.assert_array_equal(albedo[24, 24], [0, 255, 0, 255])
    depth = np.asarray(Image.open(io.BytesIO(views.files["000.depth.png"])))[24, 24] / 10_000
    assert depth == pytest.approx(2 + 0.3, abs=0.01)  # the last of 31 sheets, 0.6 deep in all


def test_cropping_keeps_the_edge_that_a_wide_filter_blurs(render, tmp_path):
    path = write_glb(tmp_path / "a.glb", Part())
    filtered = VIEWS | {"denoise": "none", "pixel_filter": "GAUSSIAN", "filter_width": 6.0, "noise": 0.0}
    cropped, whole = (render(path, crop=crop, **filtered).pixels for crop in (True, False))
    np.testing.assert_array_equal(cropped[..., 3], whole[..., 3])


@pytest.mark.parametrize("kind", ["glb", "obj"])
def test_cropping_does_not_change_the_views(render, tmp_path, kind):
    path = doubled(tmp_path, kind)
    cropped, whole = (render(path, crop=crop, **VIEWS | {"denoise": "none"}).pixels for crop in (True, False))
    np.testing.assert_array_equal(cropped[..., 3] > 0, whole[..., 3] > 0)
