"""Views agree with the object's geometry, the stored cameras and the colours of the materials."""

import numpy as np
import pytest
import trimesh
from PIL import Image, ImageDraw

from rendering import cameras
from rendering.blender_process import BlenderProcess
from rendering.limits import Limits

Y_UP_TO_Z_UP = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])  # what glTF and OBJ mean by up, and what Blender does


def silhouette(scene: trimesh.Scene, meta: dict, extrinsics: np.ndarray, resolution: int) -> np.ndarray:
    """Return the mask `[resolution, resolution]` of the object's triangles projected with the stored camera."""
    fine = 4 * resolution
    canvas = Image.new("1", (fine, fine))
    draw = ImageDraw.Draw(canvas)
    mesh = scene.to_geometry()
    points = meta["scale"] * (mesh.vertices @ Y_UP_TO_Z_UP.T + meta["offset"])
    corners = cameras.project(points, extrinsics, fine)[mesh.faces]
    for triangle in corners[np.isfinite(corners).all(axis=(1, 2))]:
        draw.polygon([tuple(corner) for corner in triangle], fill=1)
    share = np.asarray(canvas, dtype=float).reshape(resolution, 4, resolution, 4).mean(axis=(1, 3))
    return share > 0.5


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Return the intersection over union of two masks."""
    return (first & second).sum() / (first | second).sum()


def test_silhouette_of_a_scene_with_many_roots(render, corner):
    views = render(corner)
    scene = trimesh.load_scene(corner)
    for camera, pixels in zip(views.cameras, views.pixels, strict=True):
        assert overlap(silhouette(scene, views.meta, camera, 128), pixels[..., 3] > 127) > 0.95


@pytest.mark.parametrize("name", ["TURBOPROP_AIRPLANE_WITH_PILOT", "Womens_Multi_13"])
def test_silhouette_of_a_scan(render, scans, name):
    views = render(scans / f"{name}.glb")
    scene = trimesh.load_scene(scans / f"{name}.glb")
    for camera, pixels in zip(views.cameras, views.pixels, strict=True):
        assert overlap(silhouette(scene, views.meta, camera, 128), pixels[..., 3] > 127) > 0.95


def test_the_longest_side_is_one_and_the_centre_is_the_origin(render, corner):
    meta = render(corner, views=1).meta
    points = trimesh.load_scene(corner).to_geometry().vertices @ Y_UP_TO_Z_UP.T
    normalised = meta["scale"] * (points + meta["offset"])
    low, high = normalised.min(axis=0), normalised.max(axis=0)
    assert (high - low).max() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(low + high, 0, atol=1e-5)


def test_equal_seeds_give_equal_bytes_after_any_other_object(render, corner, scans_or_box):
    first = render(corner, seed=7)
    render(scans_or_box, seed=3)
    assert render(corner, seed=7).files == first.files
    with BlenderProcess(Limits(threads=2)) as fresh:
        assert render(corner, seed=7, renderer=fresh).files == first.files
    assert render(corner, seed=8).files != first.files


@pytest.fixture
def scans_or_box(tmp_path):
    trimesh.creation.icosphere().export(tmp_path / "ball.ply")
    return tmp_path / "ball.ply"


def test_formats_show_the_same_object(render, corner, blender_script, tmp_path):
    expected = render(corner).pixels[..., 3] > 127
    blender_script(f"""
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.ops.import_scene.gltf(filepath={str(corner)!r})
to = {str(tmp_path)!r} + "/corner"
bpy.ops.export_scene.gltf(filepath=to + ".gltf", export_format="GLTF_SEPARATE")
bpy.ops.wm.obj_export(filepath=to + ".obj")
bpy.ops.export_scene.fbx(filepath=to + ".fbx")
bpy.ops.wm.ply_export(filepath=to + ".ply")
bpy.ops.wm.stl_export(filepath=to + ".stl")
bpy.ops.wm.usd_export(filepath=to + ".usdc")
bpy.ops.wm.usd_export(filepath=to + ".usda")
""")
    for suffix in (".gltf", ".obj", ".fbx", ".ply", ".stl", ".usdc", ".usda"):
        mask = render(tmp_path / f"corner{suffix}").pixels[..., 3] > 127
        assert overlap(mask, expected) > 0.97, suffix


def test_lights_and_cameras_of_an_asset_change_nothing(render, blender_script, tmp_path):
    """The asset has a camera, a light, and a light that is the parent of the mesh."""
    blender_script(f"""
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.ops.mesh.primitive_monkey_add()
monkey = bpy.context.object
bpy.ops.export_scene.gltf(filepath={str(tmp_path / "plain.glb")!r})
bpy.ops.object.camera_add(location=(9, 9, 9))
bpy.ops.object.light_add(type="SUN", location=(1, 2, 3))
bpy.context.object.data.energy = 50
monkey.parent = bpy.context.object
bpy.ops.export_scene.gltf(filepath={str(tmp_path / "lit.glb")!r}, export_lights=True, export_cameras=True)
""")
    assert b"KHR_lights_punctual" in (tmp_path / "lit.glb").read_bytes()
    plain, lit = (render(tmp_path / name).pixels.astype(float) for name in ("plain.glb", "lit.glb"))
    assert np.abs(plain - lit).max() <= 2  # the detour through the light's place rounds a little


def glowing_box(path, colour):
    material = trimesh.visual.material.PBRMaterial(
        baseColorFactor=[0, 0, 0, 255], emissiveFactor=colour, roughnessFactor=1.0, metallicFactor=0.0
    )
    box = trimesh.creation.box()
    box.visual = trimesh.visual.TextureVisuals(material=material)
    box.export(path)
    return path


def test_colours_are_filmic_and_in_order(render, tmp_path):
    """Filmic shows scene-linear 1.0 as 80.6 % and middle grey 0.18 as 50 %; Standard as white and sRGB 46 %."""
    box = glowing_box(tmp_path / "orange.glb", [1.0, 0.18, 0.0])
    inside = {}
    for transform in ("Standard", "Filmic"):
        views = render(box, view_transform=transform, samples=16)
        inside[transform] = np.median(views.pixels[views.pixels[..., 3] == 255], axis=0)
    np.testing.assert_allclose(inside["Standard"][:2], [255, 118], atol=2)
    np.testing.assert_allclose(inside["Filmic"][:2], [0.806 * 255, 0.5 * 255], atol=3)
    for colour in inside.values():
        assert colour[0] > colour[1] > colour[2]


def test_background_is_transparent_and_edges_are_soft(render, corner):
    alpha = render(corner, views=1, samples=16).pixels[0, ..., 3]
    assert alpha[0].max() == 0 and alpha.max() == 255
    # A real pixel filter leaves partly covered pixels along the outline.
    assert ((alpha > 0) & (alpha < 255)).sum() > 40


def test_cropping_removes_empty_pixels_only(render, corner):
    """Cameras are close, so that the object also reaches over the border."""
    whole, cropped = (render(corner, radius=[1.0, 1.6], views=6, denoise="none", crop=crop) for crop in (False, True))
    np.testing.assert_array_equal(whole.pixels[..., 3] > 0, cropped.pixels[..., 3] > 0)
    assert np.abs(whole.pixels[..., 3].astype(int) - cropped.pixels[..., 3]).max() <= 1
    opaque = whole.pixels[..., 3] == 255
    assert np.abs(whole.pixels[opaque].astype(int) - cropped.pixels[opaque]).mean() < 3  # noise may differ
