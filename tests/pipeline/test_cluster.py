"""Rendering and encoding on a real Ray cluster of one process per machine, some of which are killed."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import trimesh
from ray.cluster_utils import Cluster

from pipeline.samples import read_samples
from pipeline.shards import read_manifests
from tests.support.command import PROJECT, command
from tests.support.dots import write_dots
from training.config import EncodeConfig
from training.data.encoding import plan_jobs
from training.data.latents import encode_shard
from training.model.config import Architecture, ImageEncoderShape

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("bpy"), reason="needs Blender, the `render` extra")

SMALL = ["renderer.resolution=32", "renderer.samples=2", "renderer.views=2", "wandb.mode=disabled"]


@pytest.fixture
def cluster(monkeypatch):
    """Start a head without CPUs, like that of jobs/ray-aws.yaml."""
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # paths of sockets have at most 107 bytes
    monkeypatch.setenv("RAY_TMPDIR", folder)  # `auto` of other tests must not find this cluster
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield cluster
    cluster.shutdown()
    shutil.rmtree(folder)


def boxes(folder: Path, count: int) -> Path:
    folder.mkdir()
    for i in range(count):
        trimesh.creation.box((1, 1 + i, 2)).export(folder / f"box{i:02d}.glb")
    return folder


@contextmanager
def driver(words, project: Path, log: Path, **env: str):
    """Run a command in the background and stop it at the end of the test."""
    with open(log, "wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=project,
            env={**os.environ, "PYTHONPATH": str(project), **env},
            stdout=file,
            stderr=file,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def wait_until(condition, process: subprocess.Popen, log: Path) -> None:
    for _ in range(4000):
        if condition():
            return
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def manifests(folder: Path) -> int:
    return len(list(folder.glob("views-*.json")))


def kill_raylet(node) -> None:
    os.kill(node.all_processes["raylet"][0].process.pid, signal.SIGKILL)


def assert_same(views: Path, local: Path, objects: int) -> None:
    """Check that the shards are equal byte by byte and every object occurs once."""
    tars = [{path.name: path.read_bytes() for path in folder.glob("*.tar")} for folder in (views, local)]
    assert tars[0] == tars[1]
    uids = [uid for manifest in read_manifests(str(views), "views") for uid in manifest.uids]
    assert len(uids) == len(set(uids)) == objects
    assert {path.suffix for path in views.iterdir()} == {".tar", ".json", ".csv"}


TASK_OF_TWO_CPUS = """
import ray
from pipeline import cluster
from pipeline.config import Cluster

def task(job):
    yield job

ray.init("auto", log_to_driver=False, logging_level="ERROR")
cluster.QUERY_INTERVAL_S, cluster.REMIND_S = 0.5, 1.0
print(next(cluster.run_tasks(task, [1], Cluster(address="auto"), 2)))
"""


@pytest.mark.slow
def test_a_task_that_needs_more_than_any_machine_has_is_reported(cluster):
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    words = [sys.executable, "-c", TASK_OF_TWO_CPUS]
    with pytest.raises(subprocess.TimeoutExpired) as waiting:
        subprocess.run(
            words, cwd=PROJECT, env={**os.environ, "RAY_ADDRESS": cluster.address}, timeout=12, capture_output=True
        )
    assert b"waiting for a machine with 2 CPUs" in waiting.value.stderr and not waiting.value.stdout


@pytest.mark.slow
def test_relative_paths_are_those_of_the_command(cluster, tmp_path):
    """Workers have the working folder of the process that started Ray on their machine."""
    cluster.add_node(num_cpus=1)
    boxes(tmp_path / "objects", 2)
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.render", "objects=folder", "objects.path=objects", "output=views", *SMALL]
        + [f"cluster.address={cluster.address}"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(PROJECT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert manifests(tmp_path / "views") == 2
    assert "views of 2 objects in views" in done.stdout


@pytest.mark.slow
def test_a_run_continues_on_a_new_machine_and_workers_receive_the_code_of_the_driver(cluster, tmp_path):
    """The code of the driver differs from the installed one and is moved away before a machine joins."""
    project = tmp_path / "project"
    for package in ("conf", "pipeline", "rendering"):
        shutil.copytree(PROJECT / package, project / package, ignore=shutil.ignore_patterns("__pycache__"))
    blender = project / "rendering/blender.py"
    blender.write_text(blender.read_text().replace("VERSION = ", "VERSION = 'shipped ' + "))
    objects = boxes(tmp_path / "objects", 6)
    words = ["pipeline.render", "objects=folder", f"objects.path={objects}", "objects_per_shard=2", *SMALL]
    log, local, views = tmp_path / "log", tmp_path / "local", tmp_path / "views"
    with driver([*words, f"output={local}", "cluster.workers=2"], project, log) as process:
        assert process.wait() == 0, log.read_text()

    aws = [*words, f"output={views}", "+cluster=aws"]
    with driver(aws, project, log, RAY_ADDRESS=cluster.address) as process:
        wait_until(lambda: "rendering:" in log.read_text(), process, log)
        project.rename(tmp_path / "gone")
        first = cluster.add_node(num_cpus=1)
        wait_until(lambda: manifests(views) == 1, process, log)
        kill_raylet(first)
        assert manifests(views) < 3
        cluster.add_node(num_cpus=1)
        assert process.wait() == 0, log.read_text()
    assert_same(views, local, 6)
    ((_, sample), *_) = read_samples(str(views), "views-000002")
    assert json.loads(sample["meta.json"])["blender"].startswith("shipped 4.5")


@pytest.mark.slow
def test_shards_do_not_depend_on_lost_machines(cluster, tmp_path):
    """Six machines are replaced; all processes of each are killed, or those of Ray only."""
    objects = boxes(tmp_path / "objects", 60)
    words = ["pipeline.render", "objects=folder", f"objects.path={objects}", "objects_per_shard=4", *SMALL]
    words += ["renderer.samples=64", "renderer.resolution=64"]
    local, views, log = tmp_path / "local", tmp_path / "views", tmp_path / "log"
    done = command(*words, f"output={local}", "cluster.workers=2")
    assert done.returncode == 0, done.stderr

    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    with driver([*words, f"output={views}", f"cluster.address={cluster.address}"], PROJECT, log) as process:
        for lost in range(6):
            wait_until(lambda lost=lost: manifests(views) >= 2 * lost + 1, process, log)
            node = nodes.pop(0)
            if lost % 2:
                cluster.remove_node(node, allow_graceful=False)
            else:
                kill_raylet(node)
            nodes.append(cluster.add_node(num_cpus=1))
        assert manifests(views) < 15, "all was rendered before the last machine died"
        assert process.wait() == 0, log.read_text()
    assert_same(views, local, 60)


@pytest.mark.slow
def test_encoding_sends_its_code_and_continues_after_a_lost_machine(cluster, tmp_path):
    views, local, latents, log = (tmp_path / name for name in ("views", "local", "latents", "log"))
    write_dots(views, objects=20, per_shard=2)
    project = tmp_path / "project"
    for package in ("conf", "pipeline", "rendering", "training"):
        shutil.copytree(PROJECT / package, project / package, ignore=shutil.ignore_patterns("__pycache__"))
    # Slow enough to be killed in the middle.
    encoder = {"image_size": 224, "patch_size": 14, "width": 512, "layers": 8, "heads": 8, "projection": 64}
    shape = Architecture(resolution=32, patch=4, encoder=ImageEncoderShape(**encoder))
    for job in plan_jobs(EncodeConfig(str(views), str(local), model=shape), read_manifests(str(views), "views")):
        list(encode_shard(job))

    words = ["training.encode", f"path={views}", f"output={latents}", "model=tiny", "+cluster=aws"]
    words += [f"model.encoder.{name}={value}" for name, value in encoder.items()]

    def committed() -> int:
        return len(list(latents.glob("latents-*.json")))

    with driver(words, project, log, RAY_ADDRESS=cluster.address) as process:
        wait_until(lambda: "encoding:" in log.read_text(), process, log)
        project.rename(tmp_path / "gone")
        first = cluster.add_node(num_cpus=1)
        wait_until(committed, process, log)
        kill_raylet(first)
        assert committed() < 10
        cluster.add_node(num_cpus=1)
        assert process.wait() == 0, log.read_text()
    tars = [{path.name: path.read_bytes() for path in folder.glob("*.tar")} for folder in (latents, local)]
    assert tars[0] == tars[1] and len(tars[0]) == 10
