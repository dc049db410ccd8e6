"""What strangers send ends with its own reason, reads nothing that is not its own, and leaves the others alone."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rendering.failure import RenderFailure
from rendering.limits import Limits
from rendering.renderer import Renderer
from tests.rendering.bad_assets import make, picture

TINY = {"resolution": 32, "views": 2, "samples": 1}


@pytest.fixture
def web():
    """The address of a server, and the paths that it was asked for."""
    calls = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            calls.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", calls
        server.shutdown()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "objects").mkdir()
    (tmp_path / "secret.png").write_bytes(picture())
    (tmp_path / "secret.usda").write_text("#usda 1.0\n")
    return tmp_path / "objects"


def test_each_ends_with_its_own_reason_and_the_renderer_goes_on(render, corner, folder, web):
    address, calls = web
    bad = make(folder, folder.parent / "secret.png", address)
    assert len(bad) >= 40
    wrong = {}
    with Renderer(Limits(seconds=60)) as renderer:
        good = render(corner, renderer=renderer, **TINY).files
        child = renderer._process.pid
        for number, kind in enumerate(bad):
            try:
                render(folder / kind.name, renderer=renderer, **TINY)
                wrong[kind.name] = "rendered"
            except RenderFailure as failure:
                if failure.reason not in kind.reasons or not failure.detail:
                    wrong[kind.name] = str(failure)
            if number % 20 == 19:
                assert render(corner, renderer=renderer, **TINY).files == good
        assert renderer._process.pid == child, "none of them kills Blender"
    assert not wrong, json.dumps(wrong, indent=1)
    assert not calls
