"""Ray: start or join a cluster, run shard tasks with a bounded number in flight."""

import logging
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

from conf.options import FieldError, UserError
from pipeline.autoscaler import may_get_gpus
from pipeline.config import Cluster

Job = TypeVar("Job")
Result = TypeVar("Result")

# A task starts again so often when its worker or its machine is lost, as spot machines are; one that loses a hundred
# of them is itself what kills them. What a task raises is never tried again.
LOSSES = 100
LOOK_ROUND = 5.0  # seconds between looks at how large the cluster has become
REMIND_S = 60.0  # between two words about waiting for a machine that tasks fit on
MAX_GPU_WAIT_S = 1800.0  # for the first machine with a GPU

ROOT = Path(__file__).parents[1]
SHIPPED = ("conf", "rendering", "pipeline")  # what a task that renders imports, and Blender's process in turn


@contextmanager
def connected(
    cluster: Cluster, cpus_per_task: int, packages: tuple[str, ...] = SHIPPED, log_to_driver: bool = False
) -> Iterator[None]:
    """Join the cluster at `cluster.address`, or start Ray on this machine and stop it afterwards.

    A cluster that is joined gets the `packages` of this very process; its machines need Python and what those import.

    Raises:
        UserError: no cluster at `cluster.address`.
    """
    # Ray phones home unless it is told not to before it is imported.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    local: dict[str, Any] = {
        "num_cpus": (cluster.workers or max(1, (os.cpu_count() or 1) // cpus_per_task)) * cpus_per_task,
        "object_store_memory": 200 * 2**20,
        "include_dashboard": False,
    }
    if cluster.address:
        _require_listener(cluster.address)
    elif "RAY_AUTH_TOKEN_PATH" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # else Ray writes one to the home folder
    code = {"py_modules": [str(ROOT / package) for package in packages], "excludes": ["__pycache__"]}
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=cluster.address or "local",
            log_to_driver=log_to_driver,
            logging_level=logging.ERROR,
            **({"runtime_env": code} if cluster.address else local),
        )
    except ConnectionError as error:
        raise _nobody(cluster.address) from error
    if on_sigterm and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray's own prints a C++ stack
    try:
        yield
    finally:
        ray.shutdown()


def run_tasks(
    task: Callable[[Job], Iterator[Result]],
    jobs: Iterable[Job],
    cluster: Cluster,
    cpus_per_task: int,
    gpus_per_task: float = 0.0,
) -> Iterator[Result]:
    """Yield what `task` yields for each of `jobs`, as it comes.

    A task whose machine is lost starts again elsewhere and what it had yielded before is not yielded twice: it must
    yield as many results each time. Without `cluster.workers` as many tasks run as the cluster has room for, which
    may grow and shrink.

    Raises:
        UserError: a task was lost `LOSSES` times, or no machine with a GPU came. What a task raises comes out as it is.
    """
    import ray

    began = reminded = time.monotonic()
    remote = ray.remote(num_cpus=cpus_per_task, num_gpus=gpus_per_task, max_retries=LOSSES)(task)
    waiting = iter(jobs)
    running: list[Any] = []
    while True:
        room = cluster.workers or max(1, _room(ray.cluster_resources(), cpus_per_task, gpus_per_task))
        running += [remote.remote(job) for job in islice(waiting, max(0, room - len(running)))]
        if not running:
            return
        ready: list[Any]
        ready, running = ray.wait(running, num_returns=1, timeout=LOOK_ROUND)
        if not ready and not _room(ray.cluster_resources(), cpus_per_task, gpus_per_task):
            now, needs = time.monotonic(), f"{cpus_per_task} CPUs{' and a GPU' if gpus_per_task else ''}"
            if gpus_per_task and now - began > MAX_GPU_WAIT_S:
                raise UserError(f"no machine with {needs} came in {MAX_GPU_WAIT_S / 60:.0f} min; see `ray status`")
            if now - reminded > REMIND_S:
                reminded = now
                print(f"waiting for a machine with {needs}; see `ray status`", file=sys.stderr)
        for stream in ready:
            try:
                result: Any = ray.get(next(stream))
            except StopIteration:
                continue
            except ray.exceptions.RayTaskError as error:
                raise error.cause from error
            except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError) as error:
                raise UserError(
                    f"a shard was lost {LOSSES} times with its worker or machine; see Ray's logs"
                ) from error
            running.append(stream)
            yield result


class DeviceSettings(Protocol):
    """Settings of a task that runs on `device`, as `rendering.settings` has it."""

    @property
    def device(self) -> str:
        """Return cpu, auto, or the kind of GPU."""


def gpu_share(settings: DeviceSettings, cluster: Cluster) -> float:
    """Return the part of a GPU that each task takes; needs the connection to Ray.

    Raises:
        FieldError: `settings.device` asks for a GPU, which the cluster has not and cannot get.
    """
    import ray

    device = settings.device

    there = ray.cluster_resources().get("GPU")
    if device == "cpu" or (device == "auto" and not there):
        return 0.0
    if not there and cluster.address is None:
        raise FieldError(settings, "device", "Ray finds no GPU on this machine; use cpu or auto")
    if not there and not may_get_gpus():
        reason = "the cluster has no GPU, and no autoscaler that could bring one; start its machines with GPUs first"
        raise FieldError(settings, "device", f"{reason}, or use cpu or auto")
    return 1 / cluster.workers_per_gpu


def _require_listener(address: str) -> None:
    """Ray itself waits for ever for a head that does not answer."""
    if "://" in address:
        raise UserError(
            f"cluster.address={address}: a shard's records cannot come through Ray's client; give the same command on "
            "a machine of the cluster with cluster.address=auto"
        )
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as error:
            raise _nobody(address) from error


def _nobody(address: str | None) -> UserError:
    return UserError(
        f"there is no Ray cluster at cluster.address={address}; start one (`ray up jobs/ray-aws.yaml`, "
        "`ray start --head`), or leave `+cluster=…` out to use this machine"
    )


def _room(resources: dict[str, float], cpus: int, gpus: float) -> int:
    """How many tasks the cluster runs at a time."""
    return int(resources.get("GPU", 0) / gpus + 1e-6) if gpus else int(resources.get("CPU", 0)) // cpus
