"""Render settings: both presets, invalid values, cameras and lights."""

import math
import pickle
from dataclasses import asdict

import numpy as np
import pytest

from conf.options import FieldError
from rendering.cameras import camera_centre
from rendering.lights import Light, sample_area_light, sample_light
from rendering.settings import RenderSettings, preset, sample_cameras


def test_preset_zero123_has_the_papers_values():
    assert asdict(preset("zero123")) == asdict(RenderSettings()) | {
        "resolution": 512, "samples": 128, "min_samples": 0, "noise": 0.01, "denoise": "accurate", "crop": False,
        "pixel_filter": "BLACKMAN_HARRIS", "filter_width": 0.01, "transparent_bounces": 3, "cull_backfaces": False,
        "separate_coincident": False,
    }  # fmt: skip
    assert RenderSettings().views == 12 and RenderSettings().view_transform == "Filmic"


def test_the_default_is_the_preset_fast():
    assert preset("fast") == RenderSettings()


def test_both_presets_show_the_same_scene(render, corner):
    """Only noise and the outline may differ: inside the object the mean colours agree."""
    small = {"views": 2, "resolution": 128}
    original = render(corner, **asdict(preset("zero123")) | small).pixels / 255
    fast = render(corner, **asdict(preset("fast")) | small).pixels / 255
    inside = (original[..., 3] == 1) & (fast[..., 3] == 1)
    assert inside.mean() > 0.02
    difference = (original - fast)[inside][:, :3]
    assert np.abs(difference.mean(axis=0)).max() < 0.005
    assert -10 * math.log10((difference**2).mean()) > 30


def test_the_area_light_is_drawn_as_in_the_original():
    lights = [sample_area_light(np.random.default_rng(seed)) for seed in range(500)]
    low, high = (
        np.min([light.location for light in lights], axis=0),
        np.max([light.location for light in lights], axis=0),
    )
    np.testing.assert_allclose(low, [-1, -1, 0.5], atol=0.02)
    np.testing.assert_allclose(high, [1, 1, 1.5], atol=0.02)
    assert 300 <= min(light.power for light in lights) < 303 and 597 < max(light.power for light in lights) <= 600


@pytest.mark.parametrize(
    "wrong",
    [
        {"resolution": 4}, {"samples": 0}, {"views": 0}, {"pixel_filter": "SINC"}, {"filter_width": 0.0},
        {"filter_width": 11.0}, {"poses": [[90, 0, 2]], "views": 1},
        {"cameras": "drone"}, {"cameras": "fixed"}, {"radius": [2.0]}, {"radius": [0.5, 2.0]}, {"polar": 200.0},
        {"poses": [[90, 0]], "cameras": "fixed", "views": 1}, {"lighting": "disco"}, {"passes": ["depth", "smell"]},
        {"device": "tpu"}, {"views": 25, "cameras": "grid"},
    ],
)  # fmt: skip
def test_an_invalid_value_is_refused_with_the_name_of_its_field(wrong):
    with pytest.raises(FieldError) as caught:
        RenderSettings(**wrong)
    assert caught.value.field == next(iter(wrong))
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # it crosses Ray


def test_fixed_cameras_have_the_given_poses():
    settings = RenderSettings(cameras="fixed", views=2, poses=[[90, 0, 2], [60, 90, 1.5]])
    centres = camera_centre(sample_cameras(settings, np.random.default_rng(0)))
    high = [0, 1.5 * math.sin(math.radians(60)), 0.75]
    np.testing.assert_allclose(centres, [[2, 0, 0], high], atol=1e-12)


@pytest.mark.parametrize("cameras", ["zero123", "sphere", "hemisphere", "orbit"])
def test_cameras_follow_from_the_seed_and_the_settings(cameras):
    settings = RenderSettings(cameras=cameras, views=5, radius=[2.0, 2.4])
    first, again = (sample_cameras(settings, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert first.shape == (5, 3, 4)
    radii = np.linalg.norm(camera_centre(first), axis=1)
    assert radii.min() >= 2.0 and radii.max() <= 2.4


def test_brightness_around_the_object_by_lighting(render, corner):
    """Uniform: equal on all sides. Three points: brighter in front than behind, and no side is dark."""
    ring = {"cameras": "orbit", "polar": 90.0, "views": 8, "samples": 16, "resolution": 64}
    brightness = {}
    for lighting in ("uniform", "three_point"):
        pixels = render(corner, lighting=lighting, **ring).pixels.astype(float)
        brightness[lighting] = np.array([view[view[..., 3] == 255][:, :3].mean() for view in pixels])
    assert brightness["uniform"].std() / brightness["uniform"].mean() < 0.2
    assert brightness["three_point"].min() > 25
    front, back = brightness["three_point"][6], brightness["three_point"][2]  # azimuths 270° and 90°
    assert front > back


def light(lighting: str, seed: int, cameras: int = 0) -> Light:
    rng = np.random.default_rng(seed)
    rng.uniform(size=cameras)
    return sample_light(lighting, seed, rng)


def test_varied_lighting_draws_every_lighting_from_the_seed_alone():
    lights = [light("varied", seed) for seed in range(400)]
    assert lights == [light("varied", seed, cameras=5) for seed in range(400)]
    kinds = [(one.world, len(one.lamps)) for one in lights]
    factory, uniform, three_point = (sum(kind == fixed for kind in kinds) for fixed in ((None, 0), (1.0, 0), (0.05, 3)))
    assert all(70 < count < 130 for count in (factory, uniform, three_point, 400 - factory - uniform - three_point))
    assert {len(light("lamps", seed).lamps) for seed in range(200)} == {1, 2, 3}


def test_varied_lighting_lights_each_object_as_recorded(render, corner):
    """The view under a drawn light equals the view under the fixed lighting that meta.json records."""
    one = {"cameras": "orbit", "views": 1, "samples": 4, "resolution": 32}
    for world, lighting in ((1.0, "uniform"), (0.05, "three_point")):
        seed = next(seed for seed in range(100) if light("varied", seed).world == world)
        drawn = render(corner, lighting="varied", seed=seed, **one)
        assert drawn.meta["light"]["world"] == world
        assert np.array_equal(drawn.pixels, render(corner, lighting=lighting, seed=seed, **one).pixels)
