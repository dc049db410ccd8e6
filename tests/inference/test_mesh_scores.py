"""Chamfer distance, F-score and volume IoU of shapes whose values follow by hand."""

import numpy as np
import pytest
import trimesh

from conf.options import UserError
from inference.meshes.occupancy import grid_nodes, inside_by_parity, occupancy
from inference.meshes.read_mesh import read_mesh
from inference.meshes.scores import (
    chamfer,
    chamfer_of_points,
    f_score_of_distances,
    iou_of_nodes,
    nearest_distances,
    surface_points,
    volume_iou,
)
from inference.meshes.textured_mesh import TexturedMesh

WHITE = np.full((1, 1, 4), 255, dtype=np.uint8)


def surface(vertices, faces) -> TexturedMesh:
    faces = np.array(faces)
    count = len(faces)
    return TexturedMesh(np.array(vertices, float), faces, np.zeros((count, 3, 2)), np.zeros(count, int), (WHITE,))


def box(*sides: float, at=(0, 0, 0)) -> TexturedMesh:
    solid = trimesh.creation.box(sides)
    return surface(solid.vertices + at, solid.faces)


def sphere(radius: float = 0.5, subdivisions: int = 4) -> TexturedMesh:
    solid = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    return surface(solid.vertices, solid.faces)


def square(z: float, side: float = 1.0) -> TexturedMesh:
    corners = side / 2 * np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]) + (0, 0, z)
    return surface(corners, [[0, 1, 2], [0, 2, 3]])


def test_points_are_on_the_surface_and_uniform_by_area():
    corners = [[0, 0, 0], [2, 0, 0], [0, 2, 0], [0, 0, 5], [1, 0, 5], [0, 1, 5]]
    points = surface_points(surface(corners, [[0, 1, 2], [3, 4, 5]]), 40_000, seed=1)
    upper = points[:, 2] == 5
    assert upper.mean() == pytest.approx(0.2, abs=0.01)  # areas 2 and 0.5
    np.testing.assert_allclose(points[~upper].mean(axis=0), (2 / 3, 2 / 3, 0), atol=0.01)  # the centroid
    assert (points[~upper][:, :2].sum(axis=1) <= 2).all() and points.min() >= 0
    np.testing.assert_array_equal(points, surface_points(surface(corners, [[0, 1, 2], [3, 4, 5]]), 40_000, seed=1))


@pytest.mark.parametrize("corner", [0, 1])
def test_a_surface_without_area_has_no_points(corner):
    with pytest.raises(UserError, match="no area"):
        surface_points(surface([[0, 0, 0], [1, 0, 0]], [[0, 0, corner], [1, 1, 1]]), 10)


def test_chamfer_of_points_is_the_mean_of_both_directions():
    # From a: 1 and 3; from b: 1.
    assert chamfer_of_points([[0, 0, 0], [0, 4, 0]], [[0, 0, 1], [0, 1, 0]]) == pytest.approx((2 + 1) / 2)


def test_chamfer_of_parallel_squares_is_their_distance():
    assert chamfer(square(0), square(0.1), samples=20_000) == pytest.approx(0.1, rel=0.01)
    assert chamfer(square(0.1), square(0), samples=20_000, seed=4) == pytest.approx(0.1, rel=0.01)


def test_chamfer_of_spheres_is_the_difference_of_their_radii():
    assert chamfer(sphere(0.5), sphere(0.4), samples=20_000) == pytest.approx(0.1, rel=0.02)


def test_equal_surfaces_score_the_distance_between_samples():
    for samples in (5_000, 20_000):
        assert chamfer(square(0), square(0), samples) == pytest.approx(0.5 / samples**0.5, rel=0.1)


def f_score(a: TexturedMesh, b: TexturedMesh, threshold: float, samples: int = 20_000) -> float:
    distances = nearest_distances(surface_points(a, samples, 1), surface_points(b, samples, 2))
    return f_score_of_distances(*distances, threshold)


def test_f_score_is_the_harmonic_mean_of_both_shares():
    half = surface([[-0.5, -0.5, 0], [0, -0.5, 0], [0, 0.5, 0], [-0.5, 0.5, 0]], [[0, 1, 2], [0, 2, 3]])
    # All of the half lies on the square, and 0.5 + 0.05 of the square within 0.05 of the half.
    assert f_score(half, square(0), 0.05) == pytest.approx(2 * 0.55 / 1.55, abs=0.01)
    assert f_score(square(0), square(0.1), 0.09) == 0
    assert f_score(square(0), square(0.1), 0.11) == 1


def test_occupancy_of_a_box_is_exact():
    nodes = grid_nodes(40, 0.505)
    expected = np.logical_and.outer(np.outer(abs(nodes - 0.1) < 0.1, abs(nodes) < 0.25), abs(nodes + 0.2) < 0.3)
    np.testing.assert_array_equal(occupancy(box(0.2, 0.5, 0.6, at=(0.1, 0, -0.2)), 40), expected)


def test_a_surface_through_the_nodes_loses_and_gains_none():
    # All faces, edges and diagonals of the box run through nodes; half of the boundary counts.
    inside = occupancy(box(8, 8, 8), 16, half_side=8)  # nodes at -7.5, -6.5, …
    assert inside.sum() == 8**3
    inside = occupancy(box(8, 8, 8, at=(0.5, 0.5, 0.5)), 16, half_side=8)
    assert inside.sum() == 8**3


def test_occupancy_of_a_sphere_has_its_volume_and_no_stray_nodes():
    inside = occupancy(sphere(0.5), 64)
    radius = np.linalg.norm(np.stack(np.meshgrid(*[grid_nodes(64, 0.505)] * 3, indexing="ij")), axis=0)
    assert inside.sum() * (1.01 / 64) ** 3 == pytest.approx(4 / 3 * np.pi * 0.125, rel=0.01)
    assert not inside[radius > 0.5].any() and inside[radius < 0.495].all()


def test_occupancy_of_random_solids_agrees_with_their_planes():
    rng = np.random.default_rng(0)
    nodes = np.stack(np.meshgrid(*[grid_nodes(24, 0.505)] * 3, indexing="ij"), axis=-1)
    for _ in range(5):
        solid = trimesh.convex.convex_hull(rng.uniform(-0.5, 0.5, (12, 3)))
        heights = np.einsum("xyzk,fk->xyzf", nodes, solid.face_normals)
        expected = (heights < np.einsum("fk,fk->f", solid.triangles[:, 0], solid.face_normals)).all(axis=-1)
        np.testing.assert_array_equal(occupancy(surface(solid.vertices, solid.faces), 24), expected)


def test_volume_iou_of_boxes():
    unit = box(1, 1, 1)
    assert volume_iou(unit, unit) == 1
    assert volume_iou(unit, box(0.5, 0.5, 0.5), resolution=96) == pytest.approx(1 / 8, rel=0.05)
    # Shifted by a quarter: 3/4 of each is common, 5/4 is the union; a part of it lies outside of the unit cube.
    assert volume_iou(unit, box(1, 1, 1, at=(0.25, 0, 0)), resolution=96) == pytest.approx(0.6, rel=0.03)
    assert volume_iou(box(0.2, 0.2, 0.2, at=(-0.3, 0, 0)), box(0.2, 0.2, 0.2, at=(0.3, 0, 0))) == 0
    assert volume_iou(square(0), square(0)) == 0


def test_volume_iou_of_spheres_is_the_ratio_of_their_volumes():
    assert volume_iou(sphere(0.5), sphere(0.5, subdivisions=3)) > 0.97
    assert volume_iou(sphere(0.5), sphere(0.4), resolution=96) == pytest.approx(0.8**3, rel=0.02)


def test_orientation_and_holes_do_not_change_the_volume():
    whole = box(0.6, 0.6, 0.6)
    flipped = surface(whole.vertices, np.where(np.arange(12)[:, None] % 2, whole.faces[:, ::-1], whole.faces))
    assert volume_iou(whole, flipped) == 1
    normals = trimesh.Trimesh(whole.vertices, whole.faces).face_normals
    for axis in range(3):
        for side in (-1, 1):
            opened = surface(whole.vertices, whole.faces[normals[:, axis] * side < 0.5])
            assert len(opened.faces) == 10 and volume_iou(whole, opened) == 1


def joined(*meshes: TexturedMesh) -> TexturedMesh:
    starts = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    faces = [mesh.faces + start for mesh, start in zip(meshes, starts, strict=False)]
    return surface(np.concatenate([mesh.vertices for mesh in meshes]), np.concatenate(faces))


def test_overlapping_parts_are_a_union_and_a_cavity_is_empty():
    long, tall = box(0.9, 0.2, 0.2), box(0.2, 0.2, 0.9)
    np.testing.assert_array_equal(occupancy(joined(long, tall), 32), occupancy(long, 32) | occupancy(tall, 32))
    assert volume_iou(long, joined(long, long)) == 1
    outer, inner = box(0.9, 0.9, 0.9), box(0.5, 0.5, 0.5)
    hollow = joined(outer, surface(inner.vertices, inner.faces[:, ::-1]))
    np.testing.assert_array_equal(occupancy(hollow, 32), occupancy(outer, 32) & ~occupancy(inner, 32))


def test_the_grid_is_scanned_in_parts_with_equal_results(monkeypatch):
    whole = occupancy(sphere(0.4), 32)
    monkeypatch.setattr("inference.meshes.occupancy.MAX_CROSSINGS", 100)
    np.testing.assert_array_equal(whole, occupancy(sphere(0.4), 32))


def test_occupancy_of_scans_has_the_volume_inside_of_their_surface(scans):
    for name in ("Dino_4", "Wishbone_Pencil_Case", "Womens_Bluefish_2Eye_Boat_Shoe_in_Tan"):
        mesh = read_mesh(scans / f"{name}.glb")
        volume = abs(trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).volume)  # by the divergence theorem
        assert occupancy(mesh, 64).sum() * (1.01 / 64) ** 3 == pytest.approx(volume, rel=0.03)


def test_parity_of_a_box_is_exact():
    nodes = np.arange(64) / 32 - 1  # as mesh2sdf: -1, …, 1 - 1/32
    expected = np.logical_and.outer(np.outer(abs(nodes - 0.1) < 0.11, abs(nodes) < 0.26), abs(nodes + 0.2) < 0.31)
    np.testing.assert_array_equal(inside_by_parity(box(0.22, 0.52, 0.62, at=(0.1, 0, -0.2))), expected)


def test_parity_agrees_with_the_vote_for_closed_surfaces_only():
    whole = sphere(0.4, 3)
    assert iou_of_nodes(inside_by_parity(whole), inside_by_parity(whole)) == 1
    shared, left = box(0.9, 0.3, 0.3), box(0.3, 0.3, 0.9)
    inside, crossed = inside_by_parity(shared, 32), inside_by_parity(joined(shared, left), 32)
    np.testing.assert_array_equal(crossed, inside ^ inside_by_parity(left, 32))  # the common volume is outside
    normals = trimesh.Trimesh(shared.vertices, shared.faces).face_normals
    opened = surface(shared.vertices, shared.faces[normals[:, 0] > -0.5])  # the side at low x is missing
    lines = inside_by_parity(opened, 32)[-1]
    assert lines.sum() == inside.any(axis=0).sum() and lines.any()  # inside from the far side to the end of the grid
    assert volume_iou(shared, opened) == 1
    assert iou_of_nodes(inside_by_parity(shared), inside_by_parity(opened)) == 0


def test_squared_chamfer_and_f_score_by_hand():
    a, b = [[0, 0, 0], [0, 4, 0]], [[0, 0, 1], [0, 1, 0]]
    assert chamfer_of_points(a, b, squared=True) == pytest.approx(((1 + 9) / 2 + 1) / 2)
    there, back = nearest_distances(a, b)
    assert f_score_of_distances(there, back, 1) == pytest.approx(2 * 0.5 * 1 / 1.5)  # half of a, all of b
    assert f_score_of_distances(there, back, 0.5) == 0
