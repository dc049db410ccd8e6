"""Ray casting (`inference.meshes`) shows an object as Blender does: the same place, orientation and base colour."""

import numpy as np
import pytest
import trimesh

pytest.importorskip("embreex", reason="needs ray casting, the `views` extra")
from inference.meshes.ray_casting import RayCaster
from inference.meshes.read_mesh import read_mesh


@pytest.fixture
def agrees(render):
    """Return a function that compares silhouettes (IoU) and base colours of a file."""

    def agrees(asset) -> None:
        views = render(asset, resolution=64, views=3, samples=32, passes=["albedo"])
        ours = RayCaster(read_mesh(asset)).render(views.cameras, 64, samples_per_axis=4)
        albedo, shaded = views.pixels[::2], views.pixels[1::2]  # 000.albedo.webp, 000.webp, …
        alpha, theirs = ours[..., 3] / 255, shaded[..., 3] / 255
        assert np.minimum(alpha, theirs).sum() / np.maximum(alpha, theirs).sum() > 0.97
        inside = (ours[..., 3] == 255) & (albedo[..., 3] == 255)
        difference = np.abs(ours[inside].astype(float) - albedo[inside])[:, :3]
        assert inside.any() and difference.mean() < 3

    return agrees


def test_generated_boxes(agrees, corner):
    agrees(corner)


@pytest.mark.parametrize("suffix", ["ply", "obj"])
def test_vertex_colours_and_axes(agrees, tmp_path, suffix):
    box = trimesh.creation.box((0.5, 1, 2))
    box.apply_translation((3, 4, 5))
    rng = np.random.default_rng(0)
    box.visual.vertex_colors = np.column_stack([rng.integers(0, 256, (8, 3)), np.full(8, 255)])
    box.export(tmp_path / f"box.{suffix}")
    agrees(tmp_path / f"box.{suffix}")


def test_scan(agrees, scans):
    agrees(scans / "Schleich_African_Black_Rhino.glb")
