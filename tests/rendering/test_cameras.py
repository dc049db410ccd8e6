"""Golden values of the camera conventions, worked out by hand."""

import math

import numpy as np
import pytest

from rendering import cameras

ABOVE_X = cameras.look_at_origin([2.0, 0.0, 0.0])


def test_camera_on_the_x_axis():
    # It looks along -x: y is to its right, z is up, and the object lies 2 in front of it.
    np.testing.assert_allclose(ABOVE_X, [[0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, -2]], atol=1e-12)


def test_cameras_on_the_z_axis_are_defined():
    above = cameras.look_at_origin([0, 0, 1.5])
    # Azimuth 0: y stays on the right; the top of the picture points to -x.
    np.testing.assert_allclose(above, [[0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, -1.5]], atol=1e-12)
    below = cameras.look_at_origin([0, 0, -1.5])
    np.testing.assert_allclose(below, [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, -1.5]], atol=1e-12)


@pytest.mark.parametrize("centre", [[1, 2, 3], [-1.1, 0.3, -0.8], [0.5, -1.4, 0.01], [0, 0, -2]])
def test_extrinsics_are_rigid_and_centred(centre):
    extrinsics = cameras.look_at_origin(centre)
    rotation = extrinsics[:, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)
    np.testing.assert_allclose(cameras.camera_centre(extrinsics), centre, atol=1e-12)
    # The origin lies on the optical axis, in front.
    np.testing.assert_allclose(extrinsics[:, 3], [0, 0, -np.linalg.norm(centre)], atol=1e-12)


@pytest.mark.parametrize("centre", [[0, 0, 0], [math.nan, 0, 1], [math.inf, 0, 1]])
def test_a_camera_at_the_origin_or_not_finite_is_refused(centre):
    with pytest.raises(ValueError, match="centre="):
        cameras.look_at_origin(centre)


def test_spherical_angles():
    assert cameras.cartesian_to_spherical([0, 0, 2]) == pytest.approx((0, 0, 2))
    assert cameras.cartesian_to_spherical([0, -3, 0]) == pytest.approx((math.pi / 2, -math.pi / 2, 3))
    assert cameras.cartesian_to_spherical([1, 1, -math.sqrt(2)]) == pytest.approx((3 * math.pi / 4, math.pi / 4, 2))
    np.testing.assert_allclose(
        cameras.spherical_to_cartesian(*cameras.cartesian_to_spherical([0.3, -0.7, 1.1])), [0.3, -0.7, 1.1]
    )


def test_relative_pose_is_target_minus_condition():
    condition = cameras.look_at_origin(cameras.spherical_to_cartesian(math.radians(60), math.radians(10), 1.5))
    target = cameras.look_at_origin(cameras.spherical_to_cartesian(math.radians(90), math.radians(100), 2.0))
    # Δθ = 30°, Δφ = 90°, Δr = 0.5
    np.testing.assert_allclose(cameras.relative_pose(target, condition), [math.pi / 6, 1, 0, 0.5], atol=1e-12)
    np.testing.assert_allclose(cameras.relative_pose(condition, target), [-math.pi / 6, -1, 0, -0.5], atol=1e-12)


def test_relative_pose_across_the_seam_of_the_azimuth():
    left = cameras.look_at_origin(cameras.spherical_to_cartesian(1.0, math.radians(-170), 2.0))
    right = cameras.look_at_origin(cameras.spherical_to_cartesian(1.0, math.radians(170), 2.0))
    # From 170° to -170° is a turn by 20°.
    expected = [0, math.sin(math.radians(20)), math.cos(math.radians(20)), 0]
    np.testing.assert_allclose(cameras.relative_pose(left, right), expected, atol=1e-12)


def test_field_of_view_and_projection():
    assert pytest.approx(49.1343, abs=1e-4) == cameras.FOV_DEGREES
    # 2 away, a picture of 128 pixels spans 2 · 2 · 16/35 = 1.8286 units: 70 pixels to the unit.
    points = [[0, 0, 0], [0, 0.5, 0], [0, 0, 0.5], [3, 0, 0]]
    expected = [[64, 64], [64 + 35, 64], [64, 64 - 35], [np.nan, np.nan]]
    np.testing.assert_allclose(cameras.project(points, ABOVE_X, 128), expected, atol=1e-9)


def test_directions_are_cube_samples_not_uniform_on_the_sphere():
    centres = cameras.camera_centre(cameras.sample_zero123(np.random.default_rng(0), 20_000))
    radii = np.linalg.norm(centres, axis=1)
    assert radii.min() >= 1.5 and radii.max() <= 2.2
    assert radii.mean() == pytest.approx(1.85, abs=0.01)
    # Mean of the largest |component|: 0.793 for normalised cube samples, 0.831 for uniform ones (2,000,000 draws).
    assert (np.abs(centres).max(axis=1) / radii).mean() == pytest.approx(0.793, abs=0.005)


def test_sampling_is_seeded():
    first, again, other = (cameras.sample_zero123(np.random.default_rng(s), 12) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_sphere_is_uniform_and_hemisphere_its_upper_half():
    for sample, mean_height in ((cameras.sample_sphere, 0.0), (cameras.sample_hemisphere, 0.5)):
        centres = cameras.camera_centre(sample(np.random.default_rng(0), 20_000, (2.0, 3.0)))
        radii = np.linalg.norm(centres, axis=1)
        assert 2.0 <= radii.min() < 2.01 and 2.99 < radii.max() <= 3.0
        heights = centres[:, 2] / radii
        # Archimedes: the height is uniform, of variance 1/3 on the sphere and 1/12 on its half.
        assert heights.mean() == pytest.approx(mean_height, abs=0.01)
        assert heights.var() == pytest.approx(1 / 3 if mean_height == 0 else 1 / 12, abs=0.005)
        assert np.abs((centres[:, :2] / radii[:, None]).mean(axis=0)).max() < 0.01
        if mean_height:
            assert heights.min() >= 0


def test_grid_covers_every_direction_at_one_distance():
    """Nine rows: polar angles 10, 30, …, 170 degrees, and no direction is farther than 12.5 degrees from a camera."""
    centres = cameras.camera_centre(cameras.grid(9, 1.85))
    polar, azimuth, radius = np.stack([cameras.cartesian_to_spherical(centre) for centre in centres]).T
    assert np.allclose(radius, 1.85)
    assert np.allclose(np.degrees(polar).reshape(9, 24), 10 + 20 * np.arange(9)[:, None])
    assert np.allclose(np.degrees(azimuth).reshape(9, 24) % 360, 15 * np.arange(24))
    directions = np.random.default_rng(0).normal(size=(2000, 3))
    cosines = directions / np.linalg.norm(directions, axis=1, keepdims=True) @ centres.T / 1.85
    assert np.degrees(np.arccos(cosines.max(axis=1))).max() < 12.6


def test_orbit_goes_once_around_counter_clockwise():
    centres = cameras.camera_centre(cameras.orbit(4, math.radians(60), 2.0))
    side, up = 2 * math.sin(math.radians(60)), 1.0
    np.testing.assert_allclose(centres, [[side, 0, up], [0, side, up], [-side, 0, up], [0, -side, up]], atol=1e-12)
