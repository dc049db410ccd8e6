"""Requests of the web page can be cancelled, and only uploaded pictures are read."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from conf.options import UserError
from inference.config import DemoConfig
from inference.web.jobs import Progress, Superseded, run_with_progress
from inference.web.service import ViewService


def test_a_newer_request_cancels_an_older_one():
    wanted, steps = True, []
    may_go_on = threading.Event()

    def draw(on_step):
        for done in range(1, 100):
            steps.append(done)
            on_step(done, 99)
            may_go_on.wait(10)
        return "picture"

    with ThreadPoolExecutor(1) as device:
        drawing = run_with_progress(device, draw, lambda: wanted)
        first = next(drawing)
        assert isinstance(first, Progress) and (first.done, first.total) == (1, 99)
        wanted = False
        may_go_on.set()
        with pytest.raises(Superseded):
            list(drawing)
        assert steps == [1, 2]


def test_a_closed_page_cancels_its_request():
    may_go_on, ended = threading.Event(), threading.Event()

    def draw(on_step):
        try:
            on_step(1, 3)
            may_go_on.wait(10)
            on_step(2, 3)
        finally:
            ended.set()

    with ThreadPoolExecutor(1) as device:
        drawing = run_with_progress(device, draw, lambda: True)
        next(drawing)
        drawing.close()
        may_go_on.set()
        assert ended.wait(10)
        assert device.submit(int).result() == 0  # the device is free


def test_closing_the_service_cancels_requests(novel_view, picture, tmp_path):
    with ThreadPoolExecutor(1) as device:
        service = ViewService(novel_view, device, DemoConfig("x", cutout="none"), tmp_path)
        session = service.load_picture(str(picture))
        session.request = request = service.parse_request([0, 45, 0], 0, 3, 200, "ddim", 20, 48)
        drawing = service.sample(session, request, request)
        assert next(drawing).total == 200 * 48
        service.closing.set()
        with pytest.raises(Superseded):
            list(drawing)


def test_a_newer_request_cancels_a_3d_model(novel_view, picture, tmp_path):
    with ThreadPoolExecutor(1) as device:
        service = ViewService(novel_view, device, DemoConfig("x", cutout="none"), tmp_path)
        session = service.load_picture(str(picture))
        session.request = request = service.parse_request([0, 45, 0], 0, 3, 200, "ddim", 20)
        reconstruction = service.reconstruct(session, request, 20)
        assert next(reconstruction).total == 100
        session.request = None
        with pytest.raises(Superseded):
            list(reconstruction)
        assert device.submit(int).result() == 0  # the device is free


def test_a_picture_that_was_not_uploaded_is_refused(novel_view, picture, tmp_path):
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    (uploads / "link.png").symlink_to(picture)
    with ThreadPoolExecutor(1) as device:
        service = ViewService(novel_view, device, DemoConfig("x"), uploads)
        for path in (picture, uploads / "link.png", uploads / "../front.png"):
            with pytest.raises(UserError, match="not uploaded"):
                service.load_picture(str(path))


def test_time_left_follows_from_the_steps_done():
    assert Progress(done=10, total=40, seconds=5.0).seconds_left == 15.0
