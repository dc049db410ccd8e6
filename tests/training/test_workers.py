"""Loader workers as real processes: little shared memory, a dying worker, the end of a run."""

import os
import signal
import subprocess
import sys

import psutil
import pytest
import torch

from conf.options import UserError
from tests.support.command import PROJECT, Started
from tests.support.dots import write_dots
from tests.support.small_run import SMALL
from tests.support.view_pairs import config, key, shards_of
from training.data.batches import training_batches
from training.data.workers import report_dead_workers

ON_SMALL_SHM = """
import sys, subprocess
from itertools import islice
from conf.options import UserError
from tests.support.view_pairs import config, key, shards_of
from training.data.batches import training_batches

def batches():
    options = config(sys.argv[1], batch_size=32, workers=2, pairs_per_object=4)
    return training_batches(options, shards_of(sys.argv[1]), 128, 0)

kept = list(islice(batches(), 4))
print(*(key(batch)[::997].hex() for batch in kept), sep="\\n")
subprocess.run(["mount", "-o", "remount,size=64k", "/dev/shm"], check=True)
try:
    next(iter(batches()))
except UserError as error:
    print(error)
"""


def test_batches_do_not_need_dev_shm(tmp_path):
    """Four batches of 3 MB each are kept while /dev/shm has 2 MB; 64 KB are too few even for locks."""
    mount = "mount -t tmpfs -o size=2m none /dev/shm"
    if os.geteuid() or subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("needs the right to mount a small /dev/shm of its own")
    write_dots(tmp_path, objects=8)
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{mount} && exec "$0" -c "$1" "$2"', sys.executable, ON_SMALL_SHM, tmp_path],
        cwd=PROJECT, env={**os.environ, "PYTHONPATH": f"{PROJECT}:{PROJECT / 'tests'}"},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    *read, refused = done.stdout.splitlines()
    expected = training_batches(
        config(tmp_path, batch_size=32, workers=2, pairs_per_object=4), shards_of(tmp_path), 128, 0
    )
    assert read == [key(batch)[::997].hex() for batch, _ in zip(expected, read, strict=False)] and len(read) == 4, done
    assert "/dev/shm" in refused and "data.workers=0" in refused and "--shm-size" in refused
    assert not done.stderr


@pytest.fixture
def running(dots, tmp_path):
    """A run of thousands of steps with two loader workers, after its first steps."""
    words = [f"data.path={dots}", f"output={tmp_path / 'run'}", *SMALL, "data.workers=2", "wandb.mode=disabled"]
    words += ["data.validation_fraction=0", "trainer.max_steps=100000"]
    process = Started("training.finetune", *words)
    assert any(line.startswith("step ") for line in process.stdout), process.communicate()
    yield process
    for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []:
        child.kill()
    process.kill()


def test_a_run_whose_worker_dies_ends_with_one_sentence(running):
    workers = psutil.Process(running.pid).children()
    assert len(workers) == 2
    workers[1].kill()
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 2
    (sentence,) = errors.splitlines()
    assert sentence.startswith("error: data.workers: ") and f"pid {workers[1].pid}" in sentence
    assert not any(worker.is_running() for worker in workers)


def test_a_bus_error_names_dockers_shm_size_option():
    loader = torch.utils.data.DataLoader(BusError(), num_workers=1)
    with pytest.raises(UserError, match=r"Bus error.*docker run --shm-size=.*data.workers=0"), report_dead_workers():
        next(iter(loader))


class BusError(torch.utils.data.IterableDataset):
    def __iter__(self):
        os.kill(os.getpid(), signal.SIGBUS)
        yield 1


def test_sigterm_ends_a_run_whose_worker_hangs(running):
    """SIGTERM ends neither a stopped process nor one that waits for a disk."""
    workers = psutil.Process(running.pid).children()
    workers[0].suspend()
    running.send_signal(signal.SIGTERM)
    assert running.wait(90) == 130
    assert not any(worker.is_running() for worker in workers)
