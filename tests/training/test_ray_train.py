"""Ray Train starts the processes, on a real cluster, with kills and signals."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.command import PROJECT, command
from tests.support.distributed import GLOBAL, assert_same, one_process
from tests.support.small_run import SMALL

LOCAL = ["ray.address=local", "trainer.devices=2", "data.workers=1"]


@pytest.fixture(scope="module")
def alone(dots, tmp_path_factory) -> Path:
    return one_process(dots, tmp_path_factory.mktemp("alone") / "run")


@pytest.fixture
def start():
    started: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "training.finetune", *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(command, cwd=PROJECT, text=True, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def steps(lines) -> list[int]:
    return [int(line.split()[1].split("/")[0]) for line in lines if line.startswith("step ") and "/" in line]


def ray_workers(output: Path) -> list[int]:
    """Return the processes of the run, then their loader workers."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b"RayTrainWorker" in (folder / "cmdline").read_bytes():
                env = (folder / "environ").read_bytes()
                if f"ZERO123_TEST={output}".encode() in env:
                    found.append(int(folder.name))
        except OSError:
            continue
    return sorted(found)


@pytest.mark.slow
def test_a_run_that_loses_a_process_matches_one_process(dots, alone, tmp_path, start, monkeypatch):
    output = tmp_path / "run"
    monkeypatch.setenv("ZERO123_TEST", str(output))
    words = [f"data.path={dots}", f"output={output}", *SMALL, *GLOBAL, *LOCAL, "trainer=zero2"]
    started = start(*words)
    assert started.stdout and started.stderr
    assert any(line.startswith("step 6/10") for line in started.stdout), started.stderr.read()
    workers = ray_workers(output)
    assert len(workers) == 4
    os.kill(workers[0], signal.SIGKILL)
    out, err = started.communicate(timeout=400)
    assert started.returncode == 0, err
    assert "processes were lost; all start again from step 5" in err and "Traceback" not in err
    assert steps(out.splitlines())[-5:] == [6, 7, 8, 9, 10]
    assert out.splitlines()[-1].startswith(f"model: {output}/model")
    assert not (output / "ray").exists()
    assert_same(output, alone)


@pytest.mark.slow
def test_a_signal_to_the_command_saves_the_state_and_the_same_command_continues(dots, tmp_path, start):
    output, passes = tmp_path / "run", "data.batch_size=1"  # four passes, so that a step takes longer than a message
    alone = one_process(dots, tmp_path / "alone", passes)
    words = [f"data.path={dots}", f"output={output}", *SMALL, *GLOBAL, *LOCAL, "trainer=ddp", passes]
    words += ["trainer.checkpoint_every=1000"]
    started = start(*words)
    assert started.stdout and started.stderr
    assert any(line.startswith("step 1/10") for line in started.stdout), started.stderr.read()
    started.send_signal(signal.SIGTERM)
    _, err = started.communicate(timeout=200)
    assert started.returncode == 130, err
    assert err.rstrip().endswith("stopped; repeat the command to continue") and "Traceback" not in err
    (stopped,) = (output / "checkpoints").iterdir()
    assert 1 <= int(stopped.name) < 10
    done = command("training.finetune", *words)
    assert done.returncode == 0, done.stderr
    assert_same(output, alone)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["ray.address=local", "trainer.devices=2", "data.path=nowhere"], "nowhere"),
        (["ray.address=local", "trainer.devices=2", "trainer=single"], "trainer=single: there are 2 processes"),
        (["ray.address=local"], "trainer.devices="),
        (["ray.address=local", "trainer.devices=2", "trainer.accelerator=gpu"], "this machine has 0 GPUs, not 2"),
        (["ray.address=127.0.0.1:9", "trainer.devices=2"], "no Ray cluster answers at 127.0.0.1:9"),
    ],
)
def test_invalid_options_are_refused_with_one_sentence(words, sentence, dots, tmp_path):
    begun = time.monotonic()
    done = command("training.finetune", f"data.path={dots}", f"output={tmp_path}/run", *SMALL, *GLOBAL, *words)
    assert done.returncode == 2, done.stderr
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert sentence in error and "Traceback" not in done.stderr
    assert time.monotonic() - begun < 200, "it is not tried again and again"
