"""Volume rendering, the voxel grid and the rays of cameras, against values worked out by hand."""

import math

import numpy as np
import pytest
import torch

from inference.reconstruction.field.rays import camera_rays, cube_crossing, project
from inference.reconstruction.field.volume_rendering import composite, count_samples, render, sample_rays
from inference.reconstruction.field.voxel_grid import VoxelGrid, gather, occupancy
from rendering import cameras

ALONG_X = torch.tensor([[-2.0, 0.0, 0.0]], dtype=torch.float64), torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)


def test_samples_lie_half_a_step_inside_the_cube():
    samples = sample_rays(*ALONG_X, half_side=0.5, step=0.25)
    assert samples.distance_M.tolist() == [1.625, 1.875, 2.125, 2.375]
    assert samples.points_M3[:, 0].tolist() == [-0.375, -0.125, 0.125, 0.375]


def test_weights_of_two_half_opaque_samples_are_a_half_and_a_quarter():
    samples = sample_rays(*ALONG_X, half_side=0.5, step=0.5)
    density = torch.full((2,), math.log(2) / 0.5, dtype=torch.float64)
    rendered = composite(density, torch.tensor([[1.0], [0.0]], dtype=torch.float64), samples)
    assert rendered.weights_M.tolist() == pytest.approx([0.5, 0.25])
    assert rendered.opacity_R.tolist() == pytest.approx([0.75])
    assert rendered.distance_R.item() == pytest.approx(0.5 * 1.75 + 0.25 * 2.25)
    assert rendered.on(torch.ones(1)).item() == pytest.approx(0.5 + 0.25)


def test_rays_do_not_hide_each_other():
    origins = torch.tensor([[-2.0, 0, 0], [-2, 9, 0], [-2, 0.1, 0]])
    directions = torch.tensor([[1.0, 0, 0]]).expand(3, 3)
    rendered = render(lambda p: (torch.full((len(p),), 3.0), torch.ones(len(p), 1)), origins, directions, 0.5, 0.01)
    expected = 1 - math.exp(-3)
    assert rendered.opacity_R.tolist() == pytest.approx([expected, 0, expected], abs=1e-5)


def test_a_homogeneous_ball_has_the_opacity_of_its_chords():
    origins, directions = (part[0].reshape(-1, 3) for part in camera_rays(front(), 9))
    ball = lambda p: (5.0 * (p.norm(dim=1) < 0.4), torch.ones(len(p), 1))  # noqa: E731
    rendered = render(ball, origins, directions, half_side=0.5, step=0.001)
    nearest = torch.linalg.cross(origins, directions).norm(dim=1)
    chord = 2 * (0.4**2 - nearest**2).clamp(min=0).sqrt()
    torch.testing.assert_close(rendered.opacity_R, 1 - torch.exp(-5 * chord), atol=6e-3, rtol=0)


def test_skipping_empty_space_changes_nothing():
    grid = VoxelGrid(24, 0.5, [0.0, 0.0], None)
    with torch.no_grad():
        grid.raw.copy_(torch.rand(grid.raw.shape, generator=seeded()))
        inside = (grid.positions() - torch.tensor([0.2, -0.15, 0.1])).norm(dim=1) < 0.25
        grid.raw[1:, 0] *= 40 * inside
    cells = torch.nn.functional.max_pool3d(grid.dense()[None], 2, stride=1)[0] > 0
    origins, directions = (part.reshape(-1, 3) for part in camera_rays(front(), 24))

    def field(points):
        values = grid.interpolate(points)
        return values[:, 0], values[:, 1:]

    whole = render(field, origins, directions, 0.5, 0.01, generator=seeded())
    skipped = render(field, origins, directions, 0.5, 0.01, occupancy(grid, cells), seeded())
    assert len(skipped.weights_M) < 0.3 * len(whole.weights_M)
    torch.testing.assert_close(skipped.values_RC, whole.values_RC, atol=1e-5, rtol=0)
    torch.testing.assert_close(skipped.distance_R, whole.distance_R, atol=1e-5, rtol=0)


def test_all_samples_of_occupied_cells_are_kept():
    grid, cells = VoxelGrid(6, 0.5, [0.0]), torch.zeros(5, 5, 5, dtype=torch.bool)
    cells[1, 0, 4] = cells[3, 2, 4] = True
    origins, directions = (part.reshape(-1, 3) for part in camera_rays(front(), 32))
    occupied = occupancy(grid, cells)
    whole = sample_rays(origins, directions, 0.5, 0.01)
    samples = sample_rays(origins, directions, 0.5, 0.01, occupied)
    kept = occupied.contains(whole.points_M3)
    assert samples.ray_M.tolist() == whole.ray_M[kept].tolist()
    torch.testing.assert_close(samples.points_M3, whole.points_M3[kept], atol=1e-6, rtol=0)
    counted = count_samples(*cube_crossing(origins, directions, 0.5), 0.01)
    assert counted.tolist() == torch.bincount(whole.ray_M, minlength=whole.rays).tolist()


def test_without_an_occupied_cell_there_are_no_samples():
    occupied = occupancy(VoxelGrid(4, 0.5, [0.0]), torch.zeros(3, 3, 3, dtype=torch.bool))
    samples = sample_rays(*ALONG_X, half_side=0.5, step=0.1, occupied=occupied)
    assert (len(samples.ray_M), samples.rays) == (0, 1)


def test_gradients_of_density_and_values():
    samples = sample_rays(
        torch.tensor([[-2.0, 0.1, 0.05], [-2, -0.2, 0]], dtype=torch.float64),
        torch.tensor([[1.0, 0, 0], [1, 0, 0]], dtype=torch.float64),
        half_side=0.5,
        step=0.2,
    )
    generator = torch.Generator().manual_seed(0)
    count = len(samples.ray_M)
    density = torch.rand(count, generator=generator, dtype=torch.float64).requires_grad_()
    values = torch.rand(count, 3, generator=generator, dtype=torch.float64).requires_grad_()

    def outputs(density, values):
        rendered = composite(density, values, samples)
        return rendered.values_RC, rendered.opacity_R, rendered.distance_R

    assert torch.autograd.gradcheck(outputs, (density, values))


def test_gradients_of_grid_values():
    grid = VoxelGrid(4, 0.5, [0.0, 0.0]).double()
    points = torch.rand(20, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 0.5
    rows, weights = grid.corners(points)
    raw = torch.rand(grid.raw.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def interpolate(values):
        return gather(torch.cat([raw[:1], values]), rows, weights)

    assert torch.autograd.gradcheck(interpolate, raw[1:].clone().requires_grad_())


def test_interpolation_is_exact_for_linear_functions():
    grid = VoxelGrid(5, 0.5, [0.0])
    with torch.no_grad():
        x, y, z = grid.positions().unbind(1)
        grid.raw[1:, 0] = 1 + 2 * x - y + 0.5 * z
    points = torch.tensor([[0.1, -0.2, 0.3], [-0.5, 0.5, 0.5], [0.49, 0.01, -0.33]])
    linear = 1 + 2 * points[:, 0] - points[:, 1] + 0.5 * points[:, 2]
    torch.testing.assert_close(grid.interpolate(points)[:, 0], linear)


def test_nodes_without_parameters_have_the_empty_value_and_no_gradient():
    active = torch.zeros(4, 4, 4, dtype=torch.bool)
    active[1, 2, 3] = True
    grid = VoxelGrid(4, 0.5, [-7.0], active)
    assert grid.positions().tolist() == [pytest.approx([-0.5 + 1 / 3, -0.5 + 2 / 3, 0.5])]
    values = grid.interpolate(torch.tensor([[-0.5, -0.5, -0.5], [-0.5 + 1 / 3, -0.5 + 2 / 3, 0.5]]))
    assert values[:, 0].tolist() == pytest.approx([-7, 0], abs=1e-5)
    values.sum().backward()
    assert grid.raw.grad is not None
    assert grid.raw.grad[:, 0].tolist() == pytest.approx([0, 1], abs=1e-5)


def test_resampling_keeps_the_values_between_nodes():
    grid = VoxelGrid(5, 0.5, [0.0])
    with torch.no_grad():
        grid.raw[1:, 0] = grid.positions() @ torch.tensor([1.0, 2.0, 3.0])
    finer = grid.resampled(9)
    torch.testing.assert_close(finer.raw[1:, 0], finer.positions() @ torch.tensor([1.0, 2.0, 3.0]))


def test_rays_pass_through_the_points_that_the_cameras_project():
    places = cameras.sample_zero123(np.random.default_rng(0), 3)
    origins, directions = camera_rays(torch.from_numpy(places), 8)
    points = (origins + 1.7 * directions)[:, 5, 2].numpy()
    for camera, point in zip(places, points, strict=True):
        assert cameras.project(point[None], camera, 8)[0].tolist() == pytest.approx([2.5, 5.5])
    flat = project(torch.from_numpy(points), torch.from_numpy(places))
    for i in range(3):
        assert flat[i, i].tolist() == pytest.approx([2.5 / 4 - 1, 5.5 / 4 - 1])


def test_a_ray_that_misses_the_cube_has_no_samples():
    entry, exit = cube_crossing(torch.tensor([[-2.0, 3, 0]]), torch.tensor([[1.0, 0, 0]]), 0.5)
    assert entry.item() >= exit.item()


def seeded():
    return torch.Generator().manual_seed(0)


def front():
    return torch.from_numpy(cameras.orbit(1, math.radians(70), 1.8)).float()
