"""Parts of the report: the input of an orbit, its pictures, and the checkpoint to compare with."""

import io
import re
from base64 import b64decode

import numpy as np
import pytest
from PIL import Image

from conf.options import UserError
from inference.config import ReportConfig, Sampling
from inference.preprocess.framing import Prepared
from inference.run_report.page import input_of_orbit, load_start
from inference.views.orbits import Orbit, OrbitInput, orbit_figure, sample_orbits
from rendering.cameras import look_at_origin
from tests.support.dots import sample_of_dots, views_of_dots
from training.model.conditioning import PoseVector


def test_an_orbit_starts_from_the_view_nearest_to_25_degrees_above_the_horizon():
    elevations = np.radians([80, -25, 40, 20, 0])
    centres = 1.8 * np.stack([np.cos(elevations), np.zeros(5), np.sin(elevations)], axis=1)
    cameras = np.stack([look_at_origin(centre) for centre in centres])
    shown = input_of_orbit("dots", sample_of_dots(0, views=5, cameras=cameras), 32)
    chosen = shown.picture.image
    assert shown.name == "dots" and shown.elevation == pytest.approx(20)
    drawn = [np.asarray(picture.convert("RGBA")) for picture in views_of_dots(0, views=5, cameras=cameras)[0]]
    white = [np.where(view[..., 3:] > 0, view[..., :3], 255) for view in drawn]
    assert [np.array_equal(chosen, view) for view in white] == [False, False, False, True, False]


def test_an_orbit_shows_the_views_of_equal_steps_of_the_azimuth(novel_view, front):
    prepared = Prepared(front, front)
    (orbit,) = sample_orbits(novel_view, [OrbitInput("a <b>", prepared, 20.0)], 4, Sampling(steps=2))
    expected = novel_view(prepared, [[0, 0, 0], [0, 90, 0], [0, 180, 0], [0, 270, 0]], steps=2)
    assert [view.tobytes() for view in orbit.views] == [view.tobytes() for view in expected]


def test_an_orbit_of_stable_zero123_starts_from_the_elevation_of_the_picture(novel_view, prepared, monkeypatch):
    monkeypatch.setattr(novel_view.model.cc_projection, "pose_vector", PoseVector.stable_zero123)
    (orbit,) = sample_orbits(novel_view, [OrbitInput("chair", prepared, 35.0)], 2, Sampling(steps=2))
    expected = novel_view(prepared, [[0, 0, 0], [0, 180, 0]], steps=2, elevation=35)
    assert [view.tobytes() for view in orbit.views] == [view.tobytes() for view in expected]


def test_the_figure_of_an_orbit_has_the_input_an_endless_animation_and_every_view():
    red, *views = (Image.new("RGB", (16, 16), colour) for colour in ("red", "white", "green", "blue", "black"))
    figure = orbit_figure(Orbit("a <b>", red, tuple(views)))
    images = [Image.open(io.BytesIO(b64decode(data))) for data in re.findall('base64,([^"]+)', figure)]
    assert [getattr(image, "n_frames", 1) for image in images] == [1, 4, 1, 1, 1, 1]
    assert images[1].info["loop"] == 0 and images[1].width > 16
    colours = [np.asarray(image.convert("RGB"))[8, 8].astype(int) for image in images]
    expected = [[255, 0, 0], [255, 255, 255], [255, 255, 255], [0, 128, 0], [0, 0, 255], [0, 0, 0]]
    assert np.abs(np.array(colours) - expected).max() < 12  # WebP is lossy
    assert "a &lt;b&gt;" in figure and "a <b>" not in figure


def test_a_start_of_another_size_is_refused(folder):
    config = ReportConfig("views", "outputs/run", start=str(folder))
    assert load_start(config, 16).model.resolution == 16
    with pytest.raises(UserError, match="^start=.*16.*outputs/run 64"):
        load_start(config, 64)
