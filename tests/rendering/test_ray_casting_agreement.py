"""Ray casting (`inference.meshes`) shows an object as Blender does: the same place, orientation and base colour."""

import numpy as np
import pytest
import trimesh

pytest.importorskip("embreex", reason="needs ray casting, the `views` extra")
pytest.importorskip("xatlas", reason="needs texture coordinates, the `views` extra")
from inference.meshes.ray_casting import RayCaster
from inference.meshes.read_mesh import read_mesh
from inference.meshes.textured_mesh import TexturedMesh
from inference.meshes.write_mesh import write_mesh
from inference.reconstruction.posed_views import PosedViews
from inference.reconstruction.surface.baking import bake
from inference.reconstruction.surface.extraction import extract_surface
from inference.reconstruction.surface.simplification import make_solid
from inference.reconstruction.surface.unwrapping import unwrap
from rendering.cameras import orbit


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


def test_a_baked_mesh(agrees, tmp_path):
    """A file of a reconstruction is rendered as any asset: colours of pictures, of the field, and of vertices."""
    grid = np.linspace(-0.55, 0.55, 32)
    x, y, z = np.meshgrid(grid, grid, grid, indexing="ij")
    ball, foot = np.sqrt(x**2 + y**2 + (z - 0.1) ** 2) < 0.35, np.maximum(np.abs(x - 0.1), np.abs(y)) < 0.2
    density = 1000 * (ball | foot & (np.abs(z + 0.3) < 0.15))
    vertices, faces = make_solid(*extract_surface(density.astype(np.float32), 0.55), target=1000)
    cameras = orbit(2, np.pi / 3, 1.9)

    def paint(points):
        return 0.5 + 0.4 * np.sin(points * [5, 7, 6] + [0, 1, 2])

    white, material = np.full((1, 1, 4), 255, dtype=np.uint8), np.zeros(len(faces), dtype=np.int64)
    painted = TexturedMesh(
        vertices, faces, np.zeros((len(faces), 3, 2)), material, (white,), np.uint8(255 * paint(vertices))
    )
    pictures = RayCaster(painted).render(cameras, 64)
    masks = pictures[..., 3] / np.float32(255)
    on_white = np.uint8(pictures[..., :3] * masks[..., None] + 255 * (1 - masks[..., None]))
    views = PosedViews(cameras, on_white, masks, np.array([2, 1], dtype=np.float32))

    uv, size = unwrap(vertices, faces, 256)
    texture, _ = bake(vertices, faces, uv, size, views, paint)
    write_mesh(tmp_path / "baked.glb", TexturedMesh(vertices, faces, uv, material, (texture,)))
    write_mesh(tmp_path / "vertices.glb", painted, height_m=0.12)
    agrees(tmp_path / "baked.glb")
    agrees(tmp_path / "vertices.glb")
