"""Progress, contact sheets and offline W&B logs of runs that are interrupted, killed and resumed."""

import importlib.util
import io
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
import wandb
from botocore.exceptions import ClientError
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

from conf.tracking import WandbMode
from pipeline.monitor import contact_sheet, figures, monitored
from pipeline.progress import read
from pipeline.shards import ObjectRecord, find_manifests, read_manifests, write_shard
from tests.support.command import PROJECT, command
from tests.support.dots import sample_of_dots
from tests.support.render_run import commit, planned
from tests.support.tracked import tracked


@pytest.fixture(scope="module")
def resumed(tmp_path_factory) -> Path:
    """Return the folder of a run that was interrupted after its first shard and resumed."""
    root = tmp_path_factory.mktemp("run") / "views"
    config, jobs = planned(root)
    with pytest.raises(KeyboardInterrupt), monitored(config, jobs, []) as record_progress:
        for record in commit(jobs[0], failed="a2"):
            record_progress(record)
        raise KeyboardInterrupt
    stopped = read(str(root), time.time())
    assert (stopped.state, stopped.done, stopped.total) == ("stopped", 2, 4)
    time.sleep(1.1)  # a step of W&B is a second
    with monitored(config, jobs[1:], read_manifests(str(root), "views")) as record_progress:
        assert read(str(root), time.time()).state == "running"
        for record in commit(jobs[1]):
            record_progress(record)
    return root


def test_both_sessions_log_to_one_wandb_run(resumed):
    first, second = sorted((resumed / "wandb").glob("offline-run-*"))
    (run_id, config, before), (again, _, after) = tracked(first), tracked(second)
    progress = read(str(resumed), time.time())
    assert run_id == again == progress.wandb
    assert config["seed"] == 7 and config["renderer.views"] == 4 and config["output"] == str(resumed)
    assert max(row["_step"] for row in before) < min(row["_step"] for row in after)
    last = after[-1]
    assert {key: last[key] for key in ("objects", "views", "bytes", "failed/timeout", "failed/crashed")} == {
        "objects": 4, "views": 12, "bytes": 3000, "failed/timeout": 1, "failed/crashed": 0,
    }  # fmt: skip
    assert last["failure_rate"] == 0.25 and last["phase_seconds/render"] == 0.75
    assert last["phase_share/render"] == pytest.approx(3 / 9) and last["phase_share/other"] == pytest.approx(3 / 9)
    assert last["nodes/one.cloud/utilisation"] > 0 and last["utilisation"] > 0
    assert set(figures(progress)) <= set(last)


def test_wandb_has_contact_sheets_of_committed_shards(resumed):
    for folder, rows in zip(sorted((resumed / "wandb").glob("offline-run-*")), (1, 2), strict=True):
        (row,) = [row for row in tracked(folder)[2] if "pictures._type" in row]
        sheet = Image.open(folder / "files" / row["pictures.path"])
        assert sheet.size == (4 * 32, rows * 32)
        assert row["pictures._type"] == "image-file"


def test_a_contact_sheet_shows_the_views_on_white(tmp_path):
    _, jobs = planned(tmp_path)
    commit(jobs[0])
    sheet = np.asarray(contact_sheet(str(tmp_path), jobs[0].name))
    view = Image.open(io.BytesIO(sample_of_dots(1)["002.webp"])).convert("RGBA")
    white = Image.new("RGBA", view.size, "white")
    np.testing.assert_array_equal(sheet[32:, 64:96], Image.alpha_composite(white, view).convert("RGB"))
    write_shard(str(tmp_path), "views-000009", [], [])
    assert contact_sheet(str(tmp_path), "views-000009") is None


def test_objects_of_a_retry_count_once(tmp_path):
    config, jobs = planned(tmp_path, WandbMode.disabled)
    a1, _ = commit(jobs[0], failed="a2")
    commit(jobs[1])
    with monitored(config, [replace(jobs[0], kept=(a1,))], read_manifests(str(tmp_path), "views")) as record_progress:
        before = read(str(tmp_path), time.time())
        assert (before.done, before.total, before.failed) == (3, 4, {})
        record_progress(ObjectRecord("a2", "ok", seconds=1, bytes=1000))
    now = read(str(tmp_path), time.time())
    assert (now.state, now.ok, now.failed, now.bytes, now.wandb) == ("finished", 4, {}, 4000, "")
    assert not (tmp_path / "wandb").exists()


def test_a_damaged_shard_only_lacks_its_contact_sheet(tmp_path, capsys):
    config, jobs = planned(tmp_path)
    with monitored(config, jobs, []) as record_progress:
        for job in jobs:
            for record in commit(job):
                record_progress(record)
        (tmp_path / "views-000001.tar").write_bytes(b"noise" * 300)
    assert "W&B's pictures cannot be written" in capsys.readouterr().err
    assert read(str(tmp_path), time.time()).state == "finished"


def test_a_store_that_fails_does_not_stop_the_rendering(tmp_path, capsys, monkeypatch):
    config, jobs = planned(tmp_path, WandbMode.disabled)

    def busy(*_: object) -> None:
        raise ClientError({"Error": {"Code": "503", "Message": "Slow Down"}}, "PutObject")

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", busy)
    with monitored(replace(config, output="memory://busy/views"), jobs, []) as record_progress:
        for record in commit(jobs[0]):
            record_progress(record)
    assert "progress.json cannot be written" in capsys.readouterr().err


def test_a_wandb_that_fails_does_not_stop_the_rendering(tmp_path, capsys, monkeypatch):
    def died(*_: object, **__: object) -> None:
        raise ConnectionResetError("the process of W&B was killed")

    config, jobs = planned(tmp_path)
    monkeypatch.setattr("wandb.sdk.wandb_run.Run.log", died)
    monkeypatch.setattr("wandb.sdk.wandb_run.Run.finish", died)
    with monitored(config, jobs, []) as record_progress:
        for job in jobs:
            for record in commit(job):
                record_progress(record)
    monkeypatch.undo()
    wandb.run.finish()
    assert "W&B" in capsys.readouterr().err
    assert read(str(tmp_path), time.time()).state == "finished"


SMALL = ["renderer.resolution=32", "renderer.samples=2", "renderer.views=3", "cluster.workers=1", "objects_per_shard=1"]


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    folder = tmp_path_factory.mktemp("objects")
    for i in range(12):
        trimesh.creation.box((1, 1 + i, 2)).export(folder / f"box{i:02d}.glb")
    (folder / "noise.glb").write_bytes(b"no glTF at all")
    return folder


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("bpy"), reason="needs Blender, the `render` extra")
def test_an_interrupted_and_a_killed_run_keep_their_counts_and_wandb_id(objects, tmp_path):
    root = tmp_path / "views"
    words = ["pipeline.render", "objects=folder", f"objects.path={objects}", f"output={root}", *SMALL]
    runs = []
    for shards, blow, state in ((1, signal.SIGINT, "stopped"), (3, signal.SIGKILL, "stale")):
        driver = subprocess.Popen([sys.executable, "-m", *words], cwd=PROJECT, stderr=subprocess.DEVNULL)
        while len(list(root.glob("views-*.json"))) < shards:
            assert driver.poll() is None
            time.sleep(0.02)
        driver.send_signal(blow)
        driver.wait(120)
        runs.append(read(str(root), time.time() + 120))
        assert runs[-1].state == state
    assert runs[1].done == len(find_manifests(str(root), "views"))
    assert runs[1].updated < time.time() - 0.01

    assert command(*words).returncode == 0
    now, manifests = read(str(root), time.time()), read_manifests(str(root), "views")
    records = [record for manifest in manifests for record in manifest.records]
    assert (now.state, now.total, now.done) == ("finished", 13, 13)
    assert now.ok == sum(record.status == "ok" for record in records) == 12
    assert now.failed == Counter(record.reason for record in records if record.reason) == {"unreadable": 1}
    assert now.bytes == sum(record.bytes for record in records) and now.views == 36
    seconds = sum(record.phases.get("render", 0) for record in records)
    assert now.phases["render"].seconds == pytest.approx(seconds / 13)
    assert all(0 < node.utilisation <= 1 for node in now.nodes.values())
    assert len({run.wandb for run in (*runs, now)}) == len({run.started for run in (*runs, now)}) == 1
    # One folder per session; the killed one lacks unflushed steps, but has the same id.
    sessions = [folder.name.rsplit("-", 1)[1] for folder in (root / "wandb").glob("offline-run-*")]
    assert sessions == 3 * [now.wandb]

    shown = command("pipeline.status", f"path={root}")
    assert shown.returncode == 0 and "\x1b" not in shown.stdout
    assert "finished" in shown.stdout.splitlines()[0] and "13 of 13 objects" in shown.stdout
    assert "  unreadable            1" in shown.stdout
    (root / "progress.json").unlink()
    rebuilt = command("pipeline.status", f"path={root}", "watch=1")
    assert rebuilt.returncode == 0 and "13 of 13 objects" in rebuilt.stdout and "36 views" in rebuilt.stdout


def test_status_watch_ends_with_the_run(tmp_path):
    config, jobs = planned(tmp_path, WandbMode.disabled)
    with monitored(config, jobs, []) as record_progress:
        words = [sys.executable, "-m", "pipeline.status", f"path={tmp_path}", "watch=0.2"]
        watcher = subprocess.Popen(words, cwd=PROJECT, stdout=subprocess.PIPE, text=True)
        first = watcher.stdout.readline()
        for job in jobs:
            for record in commit(job):
                record_progress(record)
        assert watcher.poll() is None
    rest = watcher.communicate(timeout=60)[0]
    assert first == f"{tmp_path}: running\n"
    assert watcher.returncode == 0 and f"{tmp_path}: finished" in rest and "4 of 4 objects" in rest
