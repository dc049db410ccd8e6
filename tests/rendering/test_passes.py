"""Depth, normal, mask and albedo agree with geometry and material."""

import io
import math

import numpy as np
import pytest
import trimesh
from PIL import Image

from rendering import cameras

ALL_PASSES = ["depth", "normal", "mask", "albedo"]
# From +x, and obliquely from above: a cube turned about no axis shows one face, then three.
FACING = {"cameras": "fixed", "views": 2, "poses": [[90, 0, 2], [60, 45, 2]]}


@pytest.fixture(scope="module")
def cube(tmp_path_factory):
    """Return a metallic cube (the default of glTF) of linear colour (0.5, 0.1, 0.02)."""
    path = tmp_path_factory.mktemp("cube") / "cube.glb"
    material = trimesh.visual.material.PBRMaterial(
        baseColorFactor=[0.5, 0.1, 0.02, 1.0], metallicFactor=1.0, roughnessFactor=0.3
    )
    box = trimesh.creation.box()
    box.visual = trimesh.visual.TextureVisuals(material=material)
    box.export(path)
    return path


@pytest.fixture
def views(render, cube):
    return render(cube, resolution=64, samples=8, passes=ALL_PASSES, **FACING)


def picture(views, name) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(views.files[name])))


def test_depth_is_along_the_axis_of_the_camera(views):
    depth = picture(views, "000.depth.png") / 10_000
    assert depth.dtype == np.float64 and depth[0, 0] == 0
    # The face at x = 0.5 is parallel to the picture: 1.5 everywhere, not only in its middle.
    np.testing.assert_allclose(depth[depth > 0], 1.5, atol=2e-4)
    # Obliquely the nearest point is the corner (0.5, 0.5, 0.5): 2 - 0.5 (sin 60° √2 + cos 60°).
    oblique = picture(views, "001.depth.png") / 10_000
    nearest = 2 - 0.5 * (math.sin(math.radians(60)) * math.sqrt(2) + 0.5)
    assert oblique[oblique > 0].min() == pytest.approx(nearest, abs=0.02)


def test_depth_lifts_pixels_back_to_the_surface(views):
    depth = picture(views, "001.depth.png") / 10_000
    rows, columns = np.nonzero(depth)
    focal = 64 / (2 * math.tan(math.radians(cameras.FOV_DEGREES) / 2))
    z = depth[rows, columns]
    inside = np.stack([(columns + 0.5 - 32) / focal * z, (32 - rows - 0.5) / focal * z, -z], axis=1)
    camera = views.cameras[1]
    points = (inside - camera[:, 3]) @ camera[:, :3]
    # On a cube's surface the largest coordinate is 0.5; the ray through a pixel may be half a pixel off.
    assert np.abs(np.abs(points).max(axis=1) - 0.5).max() < 0.03


def test_normals_are_in_camera_space(views):
    straight = picture(views, "000.normal.webp")
    facing = straight[straight[..., 3] == 255]
    np.testing.assert_allclose(np.median(facing, axis=0)[:3], [128, 128, 255], atol=1)
    # The three visible faces of the oblique view, as rows of world→camera.
    normals = picture(views, "001.normal.webp")
    found = normals[normals[..., 3] == 255][:, :3] / 255 * 2 - 1
    for axis in range(3):
        expected = views.cameras[1][:, axis]
        assert (np.linalg.norm(found - expected, axis=1) < 0.03).mean() > 0.15, axis


def test_mask_is_where_the_object_is(views):
    mask = picture(views, "000.mask.png")
    assert mask.dtype == bool
    alpha = views.pixels[0, ..., 3]
    assert (mask == (alpha > 127)).mean() > 0.97
    assert (mask >= (alpha == 255)).all() and not (mask & (alpha == 0)).any()


def test_albedo_is_the_base_colour_even_of_metal(views):
    albedo = picture(views, "000.albedo.webp")
    # sRGB of linear 0.5, 0.1 and 0.02 is 188, 89 and 39.
    np.testing.assert_allclose(np.median(albedo[albedo[..., 3] == 255], axis=0)[:3], [188, 89, 39], atol=1)
    assert len(np.unique(albedo[albedo[..., 3] == 255], axis=0)) < 4  # no light on it


def test_passes_do_not_change_the_colour(render, cube, views):
    plain = render(cube, resolution=64, samples=8, **FACING)
    assert {name: views.files[name] for name in plain.files} == plain.files
    assert len(views.files) == len(plain.files) + 2 * 4


def test_textures_show_in_the_albedo(render, tmp_path):
    """A box with a texture of one colour."""
    box = trimesh.creation.box()
    uv = np.full((len(box.vertices), 2), 0.5)
    texture = Image.new("RGB", (8, 8), (10, 200, 60))
    box.visual = trimesh.visual.TextureVisuals(uv, trimesh.visual.material.PBRMaterial(baseColorTexture=texture))
    box.export(tmp_path / "box.glb")
    views = render(tmp_path / "box.glb", resolution=64, passes=["albedo"], **FACING)
    albedo = picture(views, "001.albedo.webp")
    np.testing.assert_allclose(np.median(albedo[albedo[..., 3] == 255], axis=0)[:3], [10, 200, 60], atol=1)
    assert "plain" not in views.meta["verdicts"]
