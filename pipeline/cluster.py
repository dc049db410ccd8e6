"""Start or join a Ray cluster and run shard tasks with a bounded number in flight."""

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
from conf.scratch import remove_abandoned
from pipeline.autoscaler import may_get_gpus
from pipeline.config import Cluster

Job = TypeVar("Job")
Result = TypeVar("Result")

# Maximum retries of a task whose worker or machine is lost. Spot machines are lost often, but a task that loses 100 of
# them is likely the cause. Exceptions raised by a task are never retried.
MAX_LOSSES = 100
QUERY_INTERVAL_S = 5.0  # seconds between queries of the cluster's size
REMIND_S = 60.0  # interval between messages about waiting for a suitable machine
MAX_GPU_WAIT_S = 1800.0  # maximum wait for the first machine with a GPU

ROOT = Path(__file__).parents[1]
SHIPPED = ("conf", "rendering", "pipeline")  # packages imported by render tasks and by the Blender process


@contextmanager
def connected(
    cluster: Cluster, cpus_per_task: int, packages: tuple[str, ...] = SHIPPED, log_to_driver: bool = False
) -> Iterator[None]:
    """Join the cluster at `cluster.address`, or start Ray on this machine and stop it afterwards.

    A joined cluster receives the source of `packages` from this process; its machines need Python and the
    dependencies of these packages.

    Args:
        cluster: Address and task limits.
        cpus_per_task: CPU cores that each task reserves.
        packages: Top-level packages to send to a joined cluster.
        log_to_driver: Whether to print the output of tasks in this process.

    Raises:
        UserError: There is no cluster at `cluster.address`.
    """
    # Ray reads these variables on import; the first disables its usage statistics.
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
        # Without it, Ray writes a token to the home folder.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
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
        raise _unreachable(cluster.address) from error
    if on_sigterm and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray's handler prints a C++ stack trace
    try:
        yield
    finally:
        ray.shutdown()
        remove_abandoned()  # Ray kills its workers


def run_tasks(
    task: Callable[[Job], Iterator[Result]],
    jobs: Iterable[Job],
    cluster: Cluster,
    cpus_per_task: int,
    gpus_per_task: float = 0.0,
    max_losses: int = MAX_LOSSES,
) -> Iterator[Result]:
    """Run `task` on each of `jobs` and yield the results in order of completion.

    A task whose machine is lost restarts on another machine. Results yielded before the loss are not yielded again,
    so a task must yield an equal number of results on each attempt. Without `cluster.workers`, the number of
    concurrent tasks follows the cluster's size. Exceptions raised by a task propagate unchanged.

    Args:
        task: Generator function that processes one job.
        jobs: Arguments of the tasks.
        cluster: Address and task limits.
        cpus_per_task: CPU cores that each task reserves.
        gpus_per_task: Fraction of a GPU that each task reserves.
        max_losses: Maximum retries of a task whose worker or machine is lost.

    Yields:
        Results of all tasks.

    Raises:
        UserError: A task was lost too often, or no machine with a GPU joined within `MAX_GPU_WAIT_S`.
    """
    import ray

    waiting_since = reminded = time.monotonic()
    remote = ray.remote(num_cpus=cpus_per_task, num_gpus=gpus_per_task, max_retries=max_losses)(task)
    waiting = iter(jobs)
    running: list[Any] = []
    while True:
        room = cluster.workers or max(1, _room(ray.nodes(), cpus_per_task, gpus_per_task))
        running += [remote.remote(job) for job in islice(waiting, max(0, room - len(running)))]
        if not running:
            return
        ready: list[Any]
        ready, running = ray.wait(running, num_returns=1, timeout=QUERY_INTERVAL_S)
        if ready or _room(ray.nodes(), cpus_per_task, gpus_per_task):
            waiting_since = reminded = time.monotonic()
        else:
            now, needs = time.monotonic(), f"{cpus_per_task} CPUs{' and a GPU' if gpus_per_task else ''}"
            if gpus_per_task and now - waiting_since > MAX_GPU_WAIT_S:
                raise UserError(
                    f"no machine with {needs} joined within {MAX_GPU_WAIT_S / 60:.0f} min; check `ray status`"
                )
            if now - reminded > REMIND_S:
                reminded = now
                print(f"waiting for a machine with {needs}; check `ray status`", file=sys.stderr)
        for stream in ready:
            try:
                result: Any = ray.get(next(stream))
            except StopIteration:
                continue
            except ray.exceptions.RayTaskError as error:
                raise error.cause from error
            except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError) as error:
                raise UserError(
                    f"a task was lost {max_losses + 1} times with its worker or machine; check Ray's logs and the "
                    "memory, then repeat the command"
                ) from error
            running.append(stream)
            yield result


class DeviceSettings(Protocol):
    """Describe settings with a `device` field, as in `rendering.settings`."""

    @property
    def device(self) -> str:
        """Return `cpu`, `auto` or the GPU backend."""


def gpu_share(settings: DeviceSettings, cluster: Cluster) -> float:
    """Return the fraction of a GPU that each task reserves; requires a connection to Ray.

    Raises:
        FieldError: `settings.device` requires a GPU, but the cluster has none and cannot add one.
    """
    import ray

    device = settings.device

    there = ray.cluster_resources().get("GPU")
    if device == "cpu" or (device == "auto" and not there):
        return 0.0
    if not there and cluster.address is None:
        raise FieldError(settings, "device", "Ray detects no GPU on this machine; use cpu or auto")
    if not there and not may_get_gpus():
        reason = "the cluster has neither a GPU nor an autoscaler that can add one; start its machines with GPUs first"
        raise FieldError(settings, "device", f"{reason}, or use cpu or auto")
    return 1 / cluster.workers_per_gpu


def _require_listener(address: str) -> None:
    """Raise an error if `address` is not valid or nothing listens there; Ray itself would wait without a timeout."""
    if "://" in address:
        raise UserError(
            f"cluster.address={address}: Ray's client cannot transfer the records of a shard; run the command on a "
            "machine of the cluster with cluster.address=auto"
        )
    if address in ("auto", "local"):
        return
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()):
        raise UserError(f"cluster.address={address}: must be auto, or host:port of the head, such as 10.0.0.1:6379")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:  # a port above 65535 is an overflow
        raise _unreachable(address) from error


def _unreachable(address: str | None) -> UserError:
    return UserError(
        f"no Ray cluster answers at {address}; start one (`ray up jobs/ray-aws.yaml`, "
        "`ray start --head`), or use this machine alone"
    )


def _room(machines: list[dict[str, Any]], cpus: int, gpus: float) -> int:
    """Return the number of tasks that the `machines`, as Ray lists them, can run concurrently, each on one machine."""
    tasks = 0
    for resources in (machine["Resources"] for machine in machines if machine["Alive"]):
        room = int(resources.get("CPU", 0)) // cpus
        tasks += min(room, int(resources.get("GPU", 0) / gpus + 1e-6)) if gpus else room
    return tasks
