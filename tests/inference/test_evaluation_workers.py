"""Pictures are the same bytes whatever draws them: one process, several, with kills, or a Ray cluster."""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from PIL import Image

from conf.options import UserError
from inference.config import Sampling
from inference.evaluation.config import EvaluateConfig, Workers
from inference.evaluation.evaluation import evaluate
from inference.evaluation.methods.predictions import Task, batches_of
from inference.evaluation.workers import load_predictor
from tests.support.command import PROJECT, Started, command
from tests.support.dots import write_dots

OBJECTS, PAIRS, BATCH, STEPS = 5, 2, 3, 20  # batches of 3, 3, 3 and 1 views of each method
RAY = pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="needs Ray, the `cluster` extra")


@pytest.fixture(scope="module")
def given(folder, tmp_path_factory) -> EvaluateConfig:
    root = tmp_path_factory.mktemp("workers")
    write_dots(root / "views", OBJECTS, resolution=16, views=4)
    return EvaluateConfig(
        checkpoint=str(folder),
        views=[f"{root}/views"],
        output=str(root / "alone"),
        device="cpu",
        pairs=PAIRS,
        batch=BATCH,
        methods=["model", "no_pose"],
        metrics=["psnr_db"],
        sampling=Sampling(steps=STEPS),
    )


@pytest.fixture(scope="module")
def alone(given) -> dict[str, bytes]:
    """The files of a run in this process."""
    evaluate(given, load_predictor)
    return files(given.output)


def files(output: str | Path) -> dict[str, bytes]:
    names = ["*.png", "per_view.csv", "per_object.csv"]
    return {str(p.relative_to(output)): p.read_bytes() for name in names for p in Path(output).rglob(name)}


def words(given: EvaluateConfig, output: Path, *more: str) -> list[str]:
    return [
        "inference.evaluate", f"checkpoint={given.checkpoint}", f"views={given.views[0]}", f"output={output}",
        "device=cpu", f"pairs={PAIRS}", f"batch={BATCH}", "methods=[model,no_pose]", "metrics=[psnr_db]",
        f"sampling.steps={STEPS}", *more,
    ]  # fmt: skip


def kill_a_worker(driver: int, previous: int = 0) -> int:
    """Kill a process that draws for a command with SIGKILL, another one than `previous`; return its id."""
    for _ in range(2000):
        for process in psutil.Process(driver).children(recursive=True):
            try:
                if process.pid != previous and "ray::draw" in " ".join(process.cmdline()):
                    process.kill()
                    return process.pid
            except psutil.Error:
                continue
        time.sleep(0.02)
    raise AssertionError("no worker draws")


def test_a_run_without_some_pictures_draws_them_again_byte_by_byte(given, alone):
    """Whole batches are drawn again: views would differ in their last bits in a batch of another size."""
    lost = [path for i, path in enumerate(sorted(Path(given.output).rglob("*.png"))) if i % 4 == 1]
    kept = {path: path.stat().st_mtime_ns for path in Path(given.output).rglob("*.png") if path not in lost}
    for path in lost:
        path.unlink()
    evaluate(given, load_predictor)
    assert len(alone) == OBJECTS * PAIRS * 2 + 2 and files(given.output) == alone
    assert all(path.stat().st_mtime_ns == written for path, written in kept.items())


def test_batches_stay_the_same_when_objects_methods_or_samples_are_added():
    def tasks(objects: int, methods: list[str], samples: int) -> list[Task]:
        return [
            Task(Path(f"set/{method}/{uid}/000-001.{sample}.png"), None, None, method, sample)  # type: ignore[arg-type]
            for uid in range(objects)
            for method in methods
            for sample in range(samples if method == "model" else 1)
        ]

    few, many = batches_of(tasks(7, ["model"], 1), 3), batches_of(tasks(9, ["no_pose", "model"], 2), 3)
    assert [len(batch) for batch in few] == [3, 3, 1]
    assert all(batch in many for batch in few[:2])
    paths = [task.path for batch in many for task in batch]
    assert len(paths) == len(set(paths)) == 9 * 3
    assert batches_of(tasks(7, ["model"], 1) * 2, 3) == few  # two benchmarks with the same pictures


@RAY
@pytest.mark.slow
def test_two_workers_draw_the_same_bytes_even_if_one_is_killed(given, alone, tmp_path):
    started = Started(*words(given, tmp_path / "scores", "cluster.workers=2"))
    kill_a_worker(started.pid)
    _, errors = started.communicate()
    assert started.returncode == 0, errors
    assert files(tmp_path / "scores") == alone


@RAY
@pytest.mark.slow
def test_a_command_that_loses_a_batch_twice_ends_with_a_sentence_and_continues(given, alone, tmp_path):
    started, pid = Started(*words(given, tmp_path / "scores", "cluster.workers=2")), 0
    while started.poll() is None:
        with contextlib.suppress(AssertionError, psutil.Error):
            pid = kill_a_worker(started.pid, pid)
    _, errors = started.communicate()
    assert started.returncode == 2 and errors.splitlines()[-1].startswith("error: a task was lost 2 times")
    for path in (tmp_path / "scores").rglob("*.png"):
        Image.open(path).load()
    done = command(*words(given, tmp_path / "scores", "cluster.workers=2"))
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "scores") == alone


@pytest.fixture
def cluster(monkeypatch):
    """Start a cluster of a head without CPUs and one machine; return its address."""
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # paths of sockets have at most 107 bytes
    monkeypatch.setenv("RAY_TMPDIR", folder)  # `auto` of other tests must not find this cluster
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    cluster.add_node(num_cpus=2)
    yield cluster
    cluster.shutdown()
    shutil.rmtree(folder)


@RAY
@pytest.mark.slow
def test_machines_of_a_cluster_receive_code_and_views_and_one_is_lost(given, alone, cluster, tmp_path):
    """The driver's code and the views are moved away before the second machine joins."""
    project, views = tmp_path / "project", tmp_path / "views"
    for package in ("conf", "pipeline", "rendering", "training", "inference"):
        shutil.copytree(PROJECT / package, project / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(given.views[0], views)
    output, log = tmp_path / "scores", tmp_path / "log"
    line = words(replace(given, views=[str(views)]), output, "+cluster=aws")
    env = {**os.environ, "PYTHONPATH": str(project), "RAY_ADDRESS": cluster.address}
    with open(log, "wb") as file:
        process = subprocess.Popen([sys.executable, "-m", *line], cwd=project, env=env, stdout=file, stderr=file)
    while process.poll() is None and not list(output.rglob("*.png")):
        time.sleep(0.02)
    views.rename(tmp_path / "moved"), project.rename(tmp_path / "gone")
    (machine,) = cluster.worker_nodes
    os.kill(machine.all_processes["raylet"][0].process.pid, signal.SIGKILL)
    cluster.add_node(num_cpus=2)
    assert process.wait() == 0, log.read_text()
    assert files(output) == alone


@pytest.mark.parametrize(
    ("cluster", "device", "sentence"),
    [
        ({"workers": 0}, "cpu", "cluster.workers=0: must be at least 1"),
        ({"threads": 0}, "cpu", "cluster.threads=0: must be between"),
        ({"workers": 2}, "cuda:1", "device=cuda:1: is one GPU"),
    ],
)
def test_options_without_meaning_are_refused(given, cluster, device, sentence):
    with pytest.raises(UserError, match=sentence):
        replace(given, device=device, cluster=Workers(**cluster))


@RAY
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"cluster": Workers(address="127.0.0.1:9")}, "no Ray cluster answers at 127.0.0.1:9"),
        ({"cluster": Workers(workers=2), "checkpoint": "/nowhere/model"}, "/nowhere/model"),
    ],
)
def test_a_cluster_or_checkpoint_that_is_not_there_is_refused(given, change, sentence):
    with pytest.raises(UserError, match=sentence):
        load_predictor(replace(given, **change))
