"""The number of torch's threads follows from the idle cores, measured beside real busy processes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.command import PROJECT

SCRIPT = """
import torch
from training.model.hardware.cpu_threads import use_free_cores
use_free_cores()
print(torch.get_num_threads())
"""


def threads(**env: str) -> int:
    clean = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=PROJECT, env={**clean, **env}, check=True, capture_output=True, text=True
    )
    return int(done.stdout)


@contextmanager
def busy_cores() -> Iterator[None]:
    """Keep every core of this process busy."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in os.sched_getaffinity(0)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_only_idle_cores_get_threads_unless_the_environment_sets_more():
    with busy_cores():
        assert threads() == 1
        assert threads(OMP_NUM_THREADS="2") == 2
