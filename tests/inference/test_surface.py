"""The surface of a density grid: its place, its parts, and the solid that is made of it."""

import numpy as np
import pytest

from conf.options import UserError
from inference.reconstruction.surface.extraction import extract_surface
from inference.reconstruction.surface.simplification import check_surface, make_solid

N, HALF = 64, 0.55
CELL = 2 * HALF / (N - 1)
X, Y, Z = np.meshgrid(*[np.linspace(-HALF, HALF, N)] * 3, indexing="ij")
RADIUS = np.sqrt(X**2 + Y**2 + Z**2)
SPHERE = 4 / 3 * np.pi * 0.4**3


def field(inside, density=1000.0):
    return (density * inside).astype(np.float32)


def ball(x, radius):
    return np.sqrt((X - x) ** 2 + Y**2 + Z**2) < radius


def silhouette(density):
    """Return the area that the field covers by more than one half, seen along z."""
    return (1 - np.exp(-density.sum(axis=2) * CELL) > 0.5).sum() * CELL**2


def test_a_sphere_has_its_radius_and_winds_outwards():
    vertices, faces = extract_surface(field(RADIUS < 0.4), HALF)
    assert np.abs(np.linalg.norm(vertices, axis=1) - 0.4).max() < CELL
    check = check_surface(vertices, faces)
    assert check.watertight and check.components == 1 and check.volume == pytest.approx(SPHERE, rel=0.05)


@pytest.mark.parametrize("axis", range(3))
def test_the_axes_of_the_grid_are_x_y_and_z(axis):
    block = np.ones((N, N, N), dtype=bool)
    for other, coordinate in enumerate((X, Y, Z)):
        block &= (coordinate > 0.1) & (coordinate < (0.5 if other == axis else 0.2))
    vertices, _ = extract_surface(field(block), HALF)
    assert np.allclose(vertices.min(axis=0), 0.1, atol=CELL)
    assert np.allclose(vertices.max(axis=0), np.where(np.arange(3) == axis, 0.5, 0.2), atol=CELL)


@pytest.mark.parametrize("peak", [5.0, 30.0, 300.0, 3000.0])
@pytest.mark.parametrize("ramp", [0.5, 1.5])  # cells
def test_the_level_covers_the_pixels_that_the_field_covers(peak, ramp):
    density = field(1 / (1 + np.exp((RADIUS - 0.35) / (ramp * CELL))), peak)
    vertices, _ = extract_surface(density, HALF)
    expected = np.sqrt(silhouette(density) / np.pi)
    assert np.linalg.norm(vertices, axis=1).mean() == pytest.approx(expected, abs=0.6 * CELL)


def test_a_dense_core_and_densities_of_any_size_do_not_move_the_surface():
    rng = np.random.default_rng(0)
    density = field(RADIUS < 0.4, 10 ** rng.uniform(1.5, 4, RADIUS.shape)) + field(RADIUS < 0.05, 1e6)
    vertices, faces = extract_surface(density, HALF)
    assert check_surface(vertices, faces).volume == pytest.approx(SPHERE, rel=0.06)


def test_a_given_level_is_a_density():
    steps = field(RADIUS < 0.4, 20) + field(RADIUS < 0.2, 200)
    for level, radius in ((10, 0.4), (100, 0.2)):
        vertices, _ = extract_surface(steps, HALF, level)
        assert np.linalg.norm(vertices, axis=1).mean() == pytest.approx(radius, abs=0.6 * CELL)
    with pytest.raises(UserError):
        extract_surface(steps, HALF, 500)


def test_a_field_that_fills_the_grid_is_closed_at_its_border():
    vertices, faces = extract_surface(np.full((8, 8, 8), 1000, dtype=np.float32), 0.5)
    check = check_surface(vertices, faces)
    assert check.watertight and check.volume == pytest.approx((8 / 7) ** 3, rel=0.05)


def test_specks_and_cavities_are_dropped_and_large_parts_kept():
    solids = ball(-0.25, 0.2) | ball(0.25, 0.15)
    specks = ball(0.05, 0.03) | (np.random.default_rng(0).random(RADIUS.shape) < 1e-3) & (RADIUS > 0.5)
    vertices, faces = extract_surface(field((solids & ~ball(-0.25, 0.1)) | specks), HALF)
    check = check_surface(vertices, faces)
    assert check.components == 2
    assert check.volume == pytest.approx(4 / 3 * np.pi * (0.2**3 + 0.15**3), rel=0.08)


@pytest.mark.parametrize("density", [0.0, 0.01, np.nan])
def test_an_empty_or_diverged_field_is_an_error_of_the_user(density):
    with pytest.raises(UserError):
        extract_surface(np.full((16, 16, 16), density, dtype=np.float32), HALF)


def test_smoothing_removes_stair_steps_and_keeps_the_volume():
    surface = extract_surface(field(RADIUS < 0.4), HALF)
    rough, smooth = (make_solid(*surface, smoothing=steps) for steps in (0, 10))
    errors = [np.linalg.norm(vertices, axis=1).std() for vertices, _ in (rough, smooth)]
    assert errors[1] < 0.6 * errors[0]
    assert check_surface(*smooth).volume == pytest.approx(check_surface(*rough).volume, rel=0.01)


def test_a_simplified_torus_keeps_its_hole_its_volume_and_its_number_of_parts():
    torus = np.hypot(np.hypot(X, Y) - 0.3, Z)
    surface = extract_surface(field(torus < 0.15), HALF)
    vertices, faces = make_solid(*surface, target=2000)
    check = check_surface(vertices, faces)
    assert check.watertight and check.components == 1 and 1900 <= check.faces <= 2000
    assert len(vertices) - check.faces / 2 == 0  # Euler characteristic of a torus: V - E + F with E = 3 F / 2
    assert check.volume == pytest.approx(2 * np.pi**2 * 0.3 * 0.15**2, rel=0.05)


def test_a_solid_that_touches_itself_and_one_of_many_holes_are_watertight():
    corner = (X < 0) & (Y < 0) & (Z < 0) | (X > 0) & (Y > 0) & (Z > 0)
    edge = (X < 0) & (Y < 0) | (X > 0) & (Y > 0)
    gyroid = np.abs(np.sin(20 * X) * np.cos(20 * Y) + np.sin(20 * Y) * np.cos(20 * Z) + np.sin(20 * Z) * np.cos(20 * X))
    for solid, faces in ((corner, 500), (edge, 500), (gyroid < 0.3, 8000)):
        check = check_surface(*make_solid(*extract_surface(field(solid & (RADIUS < 0.5)), HALF), target=faces))
        assert check.watertight and check.volume > 0 and check.faces <= faces


def test_a_broken_mesh_is_reported():
    vertices, faces = extract_surface(field(RADIUS < 0.4), HALF)
    assert not check_surface(vertices, faces[1:]).watertight
    assert check_surface(vertices, faces[:, ::-1]).volume < 0
