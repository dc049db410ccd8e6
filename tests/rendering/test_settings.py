"""The two named recipes: the original's numbers, and the same scene sampled better."""

import math
from pathlib import Path

import numpy as np
import pytest
import yaml

from conf.options import UserError
from rendering.cameras import camera_centre
from rendering.settings import RenderSettings, sample_area_light, sample_cameras

CONF = Path(__file__).parents[2] / "conf/pipeline/renderer"


def recipe(name: str) -> dict:
    return yaml.safe_load((CONF / f"{name}.yaml").read_text())


def test_zero123_is_the_originals():
    assert recipe("zero123") == {
        "resolution": 512, "samples": 128, "min_samples": 0, "noise": 0.01, "denoise": "accurate", "crop": False,
        "pixel_filter": "BLACKMAN_HARRIS", "filter_width": 0.01, "transparent_bounces": 3, "cull_backfaces": False,
        "separate_coincident": False,
    }  # fmt: skip
    assert RenderSettings().views == 12 and RenderSettings().view_transform == "Filmic"


def test_the_default_is_fast():
    assert RenderSettings(**recipe("fast")) == RenderSettings()


def test_both_show_the_same_scene(render, corner):
    """Only noise and the outline may differ: inside the object the mean colours agree."""
    small = {"views": 2, "resolution": 128}
    original = render(corner, **recipe("zero123") | small).pixels / 255
    fast = render(corner, **recipe("fast") | small).pixels / 255
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
        {"cameras": "drone"}, {"cameras": "fixed"}, {"radius": [2.0]}, {"radius": [0.5, 2.0]}, {"polar": 200.0},
        {"poses": [[90, 0]], "cameras": "fixed", "views": 1}, {"lighting": "disco"}, {"passes": ["depth", "smell"]},
        {"device": "tpu"},
    ],
)  # fmt: skip
def test_a_recipe_that_cannot_be_is_refused(wrong):
    with pytest.raises(UserError, match=f"renderer.{next(iter(wrong))}"):
        RenderSettings(**wrong)


def test_fixed_cameras_stand_where_they_are_told():
    recipe = RenderSettings(cameras="fixed", views=2, poses=[[90, 0, 2], [60, 90, 1.5]])
    centres = camera_centre(sample_cameras(recipe, np.random.default_rng(0)))
    high = [0, 1.5 * math.sin(math.radians(60)), 0.75]
    np.testing.assert_allclose(centres, [[2, 0, 0], high], atol=1e-12)


@pytest.mark.parametrize("cameras", ["zero123", "sphere", "hemisphere", "orbit"])
def test_cameras_follow_from_the_seed_and_the_recipe(cameras):
    recipe = RenderSettings(cameras=cameras, views=5, radius=[2.0, 2.4])
    first, again = (sample_cameras(recipe, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert first.shape == (5, 3, 4)
    radii = np.linalg.norm(camera_centre(first), axis=1)
    assert radii.min() >= 2.0 and radii.max() <= 2.4


def test_lighting_recipes_light_as_they_say(render, corner):
    """Uniform: as bright from everywhere. Three points: brighter from the front than from behind, and none is dark."""
    ring = {"cameras": "orbit", "polar": 90.0, "views": 8, "samples": 16, "resolution": 64}
    brightness = {}
    for lighting in ("uniform", "three_point"):
        pixels = render(corner, lighting=lighting, **ring).pixels.astype(float)
        brightness[lighting] = np.array([view[view[..., 3] == 255][:, :3].mean() for view in pixels])
    assert brightness["uniform"].std() / brightness["uniform"].mean() < 0.2
    assert brightness["three_point"].min() > 25
    front, back = brightness["three_point"][6], brightness["three_point"][2]  # azimuths 270° and 90°
    assert front > back
