"""Untrusted files: each fails with its reason, reads no other files and does not affect other objects."""

import csv
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipeline.samples import read_samples
from rendering.blender_process import BlenderProcess
from rendering.failure import RenderFailure
from rendering.limits import Limits
from tests.support.bad_assets import make, picture
from tests.support.command import command

TINY = {"resolution": 32, "views": 2, "samples": 1}


@pytest.fixture
def web():
    """Return the address of a server and the list of paths that were requested from it."""
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


def test_each_file_fails_with_its_reason_and_blender_keeps_running(render, corner, folder, web):
    address, calls = web
    bad = make(folder, folder.parent / "secret.png", address)
    assert len(bad) >= 40
    wrong = {}
    with BlenderProcess(Limits(seconds=60)) as renderer:
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


@pytest.mark.slow
def test_a_run_over_all_files_completes_and_valid_ones_are_rendered(corner, folder, web, tmp_path):
    address, calls = web
    bad = {kind.name: kind for kind in make(folder, folder.parent / "secret.png", address)}
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in ("good_1.glb", "good_2.glb"):
        (alone / name).write_bytes(corner.read_bytes())
        (folder / name).write_bytes(corner.read_bytes())
    names = ["good_1.glb", *bad, "good_2.glb"]
    with open(folder / "objects.csv", "w", newline="") as file:
        csv.writer(file).writerows([("uid", "path"), *((name.replace(".", "_"), name) for name in names)])
    with open(alone / "objects.csv", "w", newline="") as file:
        csv.writer(file).writerows([("uid", "path"), ("good_1_glb", "good_1.glb"), ("good_2_glb", "good_2.glb")])

    def render(objects, output, *more):
        return command(
            "pipeline.render", "objects=folder", f"objects.path={objects}", f"output={output}", "cluster.workers=1",
            "renderer.resolution=32", "renderer.views=2", "renderer.samples=1", *more,
        )  # fmt: skip

    run = render(folder, tmp_path / "views", "max_failure_rate=0.5")
    assert run.returncode == 1, run.stderr
    assert "max_failure_rate" in run.stderr
    assert render(folder, tmp_path / "views", "max_failure_rate=1").returncode == 0
    manifests = [json.loads(path.read_text()) for path in sorted((tmp_path / "views").glob("views-*.json"))]
    records = {record["uid"]: record for manifest in manifests for record in manifest["records"]}
    assert len(records) == len(names)
    for kind in bad.values():
        assert records[kind.name.replace(".", "_")]["reason"] in kind.reasons, kind
    assert render(alone, tmp_path / "good").returncode == 0
    expected, found = (dict(_samples(tmp_path / place)) for place in ("good", "views"))
    assert expected == found
    assert len(found) == 2
    assert not calls


def _samples(root):
    for manifest in sorted(root.glob("views-*.json")):
        yield from read_samples(str(root), manifest.stem)
