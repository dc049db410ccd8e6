"""The handlers of the web page, without a browser."""

import base64
import io
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import gradio as gr
import numpy as np
import pytest
import torch
from PIL import Image

from inference.config import DemoConfig
from inference.novel_view import NovelView
from inference.poses import cameras_after
from inference.preprocess.framing import Prepared
from inference.web.handlers import Handlers
from inference.web.layout import build_page
from inference.web.markup import duration, thumbnail
from inference.web.service import Session, ViewService
from tests.support.painted_cube import cube
from training.model.conditioning import PoseVector


@pytest.fixture
def handlers_of(tmp_path):
    """Return a function that makes the handlers of a page for a model."""
    with ThreadPoolExecutor(1) as device:

        def make(novel_view, **options):
            service = ViewService(novel_view, device, DemoConfig("run/model", **options), tmp_path)
            return Handlers(build_page(service), service)

        yield make


def request_values(elevation):
    return [0, 45, 0], 0, 3.0, 4, "ddim", elevation


def picture_in(html):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(re.search(r"base64,([^']+)'", html)[1]))))


class Perfect(NovelView):
    """A perfect model: renders a painted cube for an input camera 35° above the horizon."""

    def __call__(self, image, poses, sampling=None, *, on_step=None, **settings):
        texture = np.random.default_rng(5).integers(0, 230, (6, 12, 12))
        for done in range(len(poses)):
            on_step(done + 1, len(poses))
        return [cube(camera, texture) for camera in cameras_after(poses, 35)]


def test_an_estimated_elevation_is_shown_in_camera_and_slider(handlers_of, novel_view):
    handlers = handlers_of(Perfect(novel_view.model))
    (picture,) = handlers.service.novel_view(None, [(0, 0, 0)], on_step=lambda done, total: None)
    session = Session(Prepared(picture, picture.convert("RGBA")), novel_view.encode(Prepared(picture, picture)))
    session.request = handlers.service.parse_request(*request_values(20))
    *_, last = handlers.estimate(session, *request_values(20))
    degrees = last[handlers.page.settings.elevation]
    assert degrees == pytest.approx(35, abs=4)
    assert last[handlers.page.camera]["elevation"] == degrees
    note = last[handlers.page.camera]["note"]
    assert re.fullmatch(rf"picture's camera: {degrees}° ± \d+° above the horizon", note)


class Recording(Perfect):
    """A model that notes the polar turns, degrees, of the views for a 3D model, and draws white views."""

    def sample(self, encoded, poses_N4, *settings):
        self.__dict__["turns"] = np.unique(np.degrees(np.asarray(poses_N4)[:, 0]).round())
        return torch.ones(len(poses_N4), 3, 256, 256)


def session_of(handlers):
    """Return a session with the picture of the perfect model."""
    (picture,) = handlers.service.novel_view(None, [(0, 0, 0)], on_step=lambda done, total: None)
    prepared = Prepared(picture, picture.convert("RGBA"))
    return Session(prepared, handlers.service.novel_view.encode(prepared))


def updates_of(responses):
    """Return all updates of a handler until it ends, with an error or without."""
    updates = []
    with suppress(gr.Error):
        updates.extend(responses)  # extend keeps the updates before an error
    return updates


def test_a_new_picture_has_the_default_elevation(handlers_of, novel_view, picture):
    handlers = handlers_of(novel_view, cutout="none")
    for response in ({"path": str(picture)}, None, {"path": "elsewhere.png"}):
        last = updates_of(handlers.load_picture(response))[-1]
        assert last[handlers.page.settings.elevation] == last[handlers.page.camera]["elevation"] == 20
        assert last[handlers.page.session].needs_estimate


def test_a_3d_model_estimates_the_elevation_that_is_unknown(handlers_of, novel_view):
    handlers = handlers_of(Recording(novel_view.model), reconstruction_views=9)
    session, slider = session_of(handlers), handlers.page.settings.elevation
    shown = [
        update[slider] for update in updates_of(handlers.reconstruct(session, *request_values(20))) if slider in update
    ]
    assert shown == [pytest.approx(35, abs=4)]
    np.testing.assert_array_equal(handlers.service.novel_view.turns, [shown[0] - 50, shown[0] - 15, shown[0] + 20])
    assert not any(slider in update for update in updates_of(handlers.reconstruct(session, *request_values(10))))
    np.testing.assert_array_equal(handlers.service.novel_view.turns, [10 - 50, 10 - 15, 10 + 20])


def test_an_elevation_that_the_visitor_set_is_not_estimated(handlers_of, novel_view):
    handlers = handlers_of(Recording(novel_view.model), reconstruction_views=9)
    session = session_of(handlers)
    session.request = handlers.service.parse_request(*request_values(20))
    estimate = handlers.estimate(session, *request_values(20))
    next(estimate)
    handlers.keep_elevation(session)  # while it is estimated
    assert not any(handlers.page.settings.elevation in update for update in estimate)
    updates_of(handlers.reconstruct(session, *request_values(20)))
    np.testing.assert_array_equal(handlers.service.novel_view.turns, [20 - 50, 20 - 15, 20 + 20])


def test_a_request_that_was_superseded_while_it_waited_does_nothing(handlers_of, novel_view, front, prepared):
    handlers = handlers_of(novel_view, preview_steps=50)
    session = Session(Prepared(front, front.convert("RGBA")), novel_view.encode(prepared))
    one, two, three = request_values(20), [[0, 90, 0], *request_values(20)[1:]], [[0, 180, 0], *request_values(20)[1:]]
    handlers.set_request(session, *one)
    handlers.set_request(session, *two)
    for handler, values in ((handlers.sample, one), (handlers.sample_orbit, [*one, 1]), (handlers.reconstruct, one)):
        assert not list(handler(session, *values))
    assert session.request == handlers.service.parse_request(*two)
    assert list(handlers.sample(session, *two))
    assert list(handlers.sample(session, *three))  # its event has overtaken the one that sets the request
    handlers.set_request(session, *three)
    handlers.set_request(session, *one)
    assert not list(handlers.sample(session, *three)) and list(handlers.sample(session, *one))
    handlers.set_request(session, *three)
    handlers.cancel(session)
    assert not list(handlers.sample(session, *three))


def test_an_unknown_elevation_changes_nothing_on_the_page(handlers_of, novel_view, front, prepared):
    handlers = handlers_of(novel_view)
    session = Session(Prepared(front, front.convert("RGBA")), novel_view.encode(prepared))
    session.request = handlers.service.parse_request(*request_values(20))
    *_, last = handlers.estimate(session, *request_values(20))
    assert list(last) == [handlers.page.camera] and last[handlers.page.camera]["note"] == ""


def test_stable_zero123_uses_the_elevation_of_the_slider(handlers_of, novel_view, front, prepared, monkeypatch):
    monkeypatch.setattr(novel_view.model.cc_projection, "pose_vector", PoseVector.stable_zero123)
    handlers = handlers_of(novel_view, preview_steps=50)
    session, shown = Session(Prepared(front, front.convert("RGBA")), novel_view.encode(prepared)), []
    for elevation in (20, 60):
        *_, last = handlers.sample(session, *request_values(elevation))
        shown.append(picture_in(last[handlers.page.view]))
        (expected,) = novel_view(prepared, [[0, 45, 0]], steps=4, elevation=elevation)
        np.testing.assert_array_equal(shown[-1], np.asarray(expected))
    assert (shown[0] != shown[1]).any()
    assert not list(
        handlers.estimate(session, *request_values(20))
    )  # an estimate would replace the value of the slider


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.04, "0.0 s"), (59.4, "59.4 s"), (60, "1 min 0 s"), (119.7, "2 min 0 s")]
)
def test_durations_are_formatted(seconds, words):
    assert duration(seconds) == words


def test_thumbnail_is_the_bounding_box_of_the_object():
    cutout = Image.new("RGBA", (2000, 1000))
    cutout.paste((200, 30, 30, 255), (100, 600, 700, 900))
    small = thumbnail(cutout)
    assert small.size == (256, 128) and small.mode == "RGBA" and small.getextrema()[3] == (255, 255)
    assert cutout.size == (2000, 1000)


def test_the_error_of_a_missing_segmenter_names_no_path_of_the_server(handlers_of, novel_view, tmp_path, capsys):
    handlers = handlers_of(novel_view, cutout=str(tmp_path / "secret.onnx"))
    Image.effect_noise((40, 40), 90).save(tmp_path / "noise.png")
    responses = handlers.load_picture({"path": str(tmp_path / "noise.png")})
    next(responses)
    status = next(responses)[handlers.page.status]
    assert "backgrounds cannot be removed here" in status and "secret" not in status
    assert "secret.onnx" in capsys.readouterr().err  # in the log of the server
