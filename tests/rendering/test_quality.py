"""Quality flags from views and geometry."""

import numpy as np
import pytest
import trimesh

from rendering import quality


def looks(*pairs):
    return [quality.ViewStats(*pair) for pair in pairs]


CUBE = trimesh.creation.box().vertices


def test_coverage_and_border_of_a_view():
    alpha = np.zeros((10, 10), np.uint8)
    alpha[:5, :5] = 255
    stats = quality.view_stats(alpha)
    assert stats.coverage == 0.25
    assert stats.border == pytest.approx(9 / 36)


def test_each_flag_has_its_cause():
    assert quality.quality_flags(looks((0.3, 0.0), (0.2, 0.0)), CUBE, 5) == []
    assert quality.quality_flags(looks((0.004, 0.0), (0.001, 0.0)), CUBE, 5) == ["nearly_blank"]
    assert quality.quality_flags(looks((0.004, 0.0), (0.2, 0.0)), CUBE, 5) == []
    assert quality.quality_flags(looks((0.3, 0.0), (0.3, 0.1)), CUBE, 5) == ["clipped"]
    assert quality.quality_flags(looks((0.3, 0.0)), CUBE, 1) == ["plain"]
    assert quality.quality_flags(looks((0.3, 0.0)), CUBE * [1, 1, 0.001], 5) == ["flat"]


def test_a_plane_is_flat_in_any_orientation():
    turn = trimesh.transformations.random_rotation_matrix(np.random.default_rng(0).random(3))[:3, :3]
    plane = np.random.default_rng(1).uniform(-0.5, 0.5, (500, 3)) * [1, 0.7, 0]
    assert quality.flatness(plane @ turn.T) == pytest.approx(0, abs=1e-9)
    assert quality.flatness(CUBE @ turn.T) > 0.3
    assert quality.flatness(CUBE * [1, 0.01, 0.01]) == pytest.approx(1)  # a rod is no plane


def test_the_mesh_hash_depends_on_every_vertex_but_not_on_order_or_scale():
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (1000, 3))
    name = quality.mesh_hash(points, 7)
    assert name == quality.mesh_hash(points[::-1], 7)
    moved = points.copy()
    moved[500, 1] += 0.01
    swapped = points.copy()
    swapped[[1, 2], 0] = swapped[[2, 1], 0]
    others = {quality.mesh_hash(other, 7) for other in (moved, swapped, points[:-1], points[:, [1, 0, 2]])}
    assert len(others | {name, quality.mesh_hash(points, 8)}) == 6


def export(box, path, **material):
    box.visual = trimesh.visual.TextureVisuals(material=trimesh.visual.material.PBRMaterial(**material))
    box.export(path)
    return path


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1, 1, 1), ["plain"]), ((1, 1, 0.001), ["plain", "flat"]), ((0.004, 0.003, 1), ["nearly_blank", "plain"])],
)
def test_a_box_of_one_colour(render, tmp_path, size, expected):
    far = {"cameras": "orbit", "radius": [3.0, 3.0], "polar": 60.0}
    box = export(trimesh.creation.box(size), tmp_path / "box.glb", baseColorFactor=[200, 30, 30, 255])
    assert render(box, resolution=64, **far).meta["verdicts"] == expected


def test_colours_close_cameras_and_copies(render, corner, tmp_path):
    near = {"cameras": "fixed", "views": 1, "poses": [[55, 45, 1.0]]}
    assert render(corner, resolution=64, **near).meta["verdicts"] == ["clipped"]
    red, blue = ([200, 30, 30, 255], [30, 30, 200, 255])
    first = render(export(trimesh.creation.box(), tmp_path / "a.glb", baseColorFactor=red)).meta
    # Equal geometry, ten times as large, elsewhere, in another colour.
    copy = trimesh.creation.box((10, 10, 10)).apply_translation([5, 0, 0])
    again = render(export(copy, tmp_path / "b.glb", baseColorFactor=blue)).meta
    other = render(export(trimesh.creation.box((1, 1, 0.9)), tmp_path / "c.glb", baseColorFactor=red)).meta
    assert first["mesh"] == again["mesh"] != other["mesh"]
