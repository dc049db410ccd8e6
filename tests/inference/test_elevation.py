import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conf.options import UserError
from inference.elevation.estimate import TURNS, estimate_elevation, fit_elevation
from inference.poses import cameras_after
from rendering.cameras import project
from tests.support.painted_cube import SIDE, cube


def tracks_of_points(degrees, radius=1.85, points=200, noise=0.0, outliers=0.0, seed=0):
    """Return tracks, in picture sides, of points in a cube for cameras at `degrees`; `noise` in pixels of 256."""
    rng = np.random.default_rng(seed)
    world = rng.uniform(-0.4, 0.4, (points, 3))
    cameras = cameras_after([(0, 0, 0), *TURNS], degrees, radius)
    tracks = np.stack([project(world, camera, 1) for camera in cameras], axis=1)
    tracks += rng.normal(size=tracks.shape) * noise / SIDE
    wrong = rng.random((points, len(TURNS))) < outliers
    tracks[:, 1:][wrong] += rng.uniform(-0.1, 0.1, (wrong.sum(), 2))
    tracks[:, 1:][rng.random((points, len(TURNS))) < 0.3] = np.nan  # hidden
    return tracks


def perfect_model(camera_at, draw):
    """Return `sample_views` of a perfect model, and its picture, rendered by `draw` at elevation `camera_at`."""
    views = lambda turns: [draw(camera) for camera in cameras_after(turns, camera_at)]  # noqa: E731
    return views, views([(0, 0, 0)])[0]


@pytest.mark.parametrize("degrees", [-60, -20, 0, 15, 47, 70, 80])
def test_exact_points_give_the_elevation_within_half_a_degree(degrees):
    found = fit_elevation(tracks_of_points(degrees), TURNS)
    assert found.degrees == pytest.approx(degrees, abs=0.5)
    assert found.uncertainty_degrees < 3


@pytest.mark.parametrize("radius", [1.5, 2.2])
def test_the_elevation_does_not_depend_on_the_camera_distance(radius):
    assert fit_elevation(tracks_of_points(30, radius), TURNS).degrees == pytest.approx(30, abs=0.5)


def test_noise_and_outliers_stay_within_the_uncertainty():
    truths = [-30, 0, 20, 40, 60] * 3
    found = [fit_elevation(tracks_of_points(e, 1.85, 60, 1, 0.3, i), TURNS) for i, e in enumerate(truths)]
    off = np.array([abs(f.degrees - e) / f.uncertainty_degrees for f, e in zip(found, truths, strict=True)])
    assert (off < 1).mean() > 0.5
    assert (off < 3).all()
    assert np.median([f.uncertainty_degrees for f in found]) < 8


def test_uncertainty_grows_with_noise():
    spreads = [fit_elevation(tracks_of_points(20, noise=noise), TURNS).uncertainty_degrees for noise in (0, 1, 3)]
    assert spreads == sorted(spreads)
    assert spreads[2] > 1.5 * spreads[0]


@pytest.mark.parametrize("degrees", [-20, 10, 50])
def test_views_of_a_painted_cube_give_the_elevation(degrees):
    texture = np.random.default_rng(5).integers(0, 230, (6, 12, 12))
    view, picture = perfect_model(degrees, lambda camera: cube(camera, texture))
    before = np.random.get_state()[1].copy()
    found = estimate_elevation(view, picture)
    assert abs(found.degrees - degrees) < min(4, 3 * found.uncertainty_degrees)
    assert found == estimate_elevation(view, picture)
    assert (np.random.get_state()[1] == before).all()


@pytest.mark.parametrize(("shade", "reason"), [(0.0, "0 points"), (0.5, "no motion")])
def test_a_ball_gives_no_elevation(shade, reason):
    """A white ball, and one lit from the camera, whose grey steps SIFT matches without motion."""
    away = np.hypot(*(np.mgrid[:SIDE, :SIDE] - SIDE / 2))
    ball = Image.fromarray(np.where(away < 90, 240 - shade * away, 255).astype(np.uint8)).convert("RGB")
    with pytest.raises(UserError, match=rf"{reason}.*; give elevation=20"):
        estimate_elevation(lambda turns: [ball] * len(turns), ball)


def test_views_without_motion_give_no_elevation():
    """Views of a vase with painted rings, which would otherwise be taken for a flat object seen from the side."""
    texture = np.random.default_rng(5).integers(0, 230, (6, 12, 12))
    picture = cube(cameras_after([(0, 0, 0)], 30)[0], texture)
    with pytest.raises(UserError, match=r"no motion.*; give elevation=20"):
        estimate_elevation(lambda turns: [picture] * len(turns), picture)


def test_views_of_noise_give_no_elevation():
    rng = np.random.default_rng(1)
    draw = lambda: Image.fromarray(rng.integers(0, 240, (SIDE, SIDE, 3), dtype=np.uint8))  # noqa: E731
    with pytest.raises(UserError, match=r"give elevation=20"):
        estimate_elevation(lambda turns: [draw() for _ in turns], draw())


def test_views_too_small_to_match_are_not_sampled():
    def fail(turns):
        raise AssertionError("drawn in vain")

    with pytest.raises(UserError, match=r"views of 32 × 32 pixels .*; give elevation=20"):
        estimate_elevation(fail, Image.new("RGB", (32, 32)))


@pytest.mark.parametrize("seed", range(5))
def test_random_matches_give_no_elevation(seed):
    rng = np.random.default_rng(seed)
    tracks = rng.uniform(0.2, 0.8, (80, 1, 2)) + rng.uniform(-0.09, 0.09, (80, 1 + len(TURNS), 2))
    with pytest.raises(UserError, match=r"contradict each other; give elevation=20"):
        fit_elevation(tracks, TURNS)


def test_matches_in_polar_views_alone_give_no_elevation():
    """A polar turn gives the same views at every elevation."""
    tracks = tracks_of_points(30)
    tracks[:, 1:][:, [azimuth != 0 for _, azimuth, _ in TURNS]] = np.nan
    with pytest.raises(UserError, match=r"fit too many elevations.*give elevation=20"):
        fit_elevation(tracks, TURNS)


def test_an_untrained_model_gives_no_elevation(novel_view, front, prepared):
    seen, large = novel_view.encode(prepared), lambda view: view.resize((64, 64))
    with pytest.raises(UserError, match=r"contradict each other; give elevation=20"):
        estimate_elevation(lambda turns: [large(view) for view in novel_view(seen, turns, steps=5)], large(front))


@pytest.mark.slow  # two minutes, alone
def test_renders_of_scans(scans: Path, tmp_path: Path):
    """Measure error and uncertainty for a perfect model of scanned objects; print the table of docs/log.md."""
    if not importlib.util.find_spec("bpy"):
        pytest.skip("needs Blender, the `render` extra")
    from rendering.blender_process import BlenderProcess
    from rendering.settings import RenderSettings

    rng = np.random.default_rng(0)
    estimated, unknown = [], 0
    with BlenderProcess() as renderer:
        for scan in sorted(scans.glob("*.glb")):
            truths = [-20, 0, 15, 30, 50, 70]
            poses = []
            for degrees in truths:
                azimuth, radius = rng.uniform(40, 320), rng.uniform(1.6, 2.1)
                poses += [[90 - degrees + p, azimuth + a, radius] for p, a, _ in ((0, 0, 0), *TURNS)]
            folder = tmp_path / scan.stem
            folder.mkdir()
            settings = RenderSettings(views=len(poses), cameras="fixed", poses=poses, samples=8)
            renderer.render(scan, settings, 0, folder)
            pictures = [on_white(folder / f"{i:03d}.webp") for i in range(len(poses))]
            for i, degrees in enumerate(truths):
                picture, *views = pictures[i * (1 + len(TURNS)) : (i + 1) * (1 + len(TURNS))]
                try:
                    found = estimate_elevation(lambda turns, views=views: views, picture)
                    estimated.append((degrees, found.degrees - degrees, found.uncertainty_degrees))
                except UserError:
                    unknown += 1
    truth, off, sigma = np.array(estimated).T
    print(f"\n{len(estimated)} estimated, {unknown} unknown")
    for degrees in sorted(set(truth)):
        at = truth == degrees
        print(f"{degrees:4.0f}°: {at.sum()} estimated, median error {np.median(np.abs(off[at])):.1f}°")
    print(f"median {np.median(np.abs(off)):.1f}°, within 10°: {(np.abs(off) < 10).mean():.2f}")
    print(f"within σ: {(np.abs(off) < sigma).mean():.2f}, within 2 σ: {(np.abs(off) < 2 * sigma).mean():.2f}")
    assert len(estimated) > unknown
    assert np.median(np.abs(off)) < 3
    assert (np.abs(off) < 10).mean() > 0.9
    assert 0.55 < (np.abs(off) < sigma).mean() < 0.95
    assert (np.abs(off) < 3 * np.maximum(sigma, 2)).mean() > 0.95


def on_white(path: Path) -> Image.Image:
    picture = Image.open(path).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
