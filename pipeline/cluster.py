"""Ray: start or join a cluster, run shard tasks with a bounded number in flight."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

from conf.options import UserError
from pipeline.config import Cluster

Job = TypeVar("Job")
Result = TypeVar("Result")


@contextmanager
def connected(cluster: Cluster, cpus_per_task: int) -> Iterator[None]:
    """Join the cluster at `cluster.address`, or start Ray on this machine and stop it afterwards.

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
    try:
        ray.init(
            address=cluster.address or "local",
            log_to_driver=False,
            logging_level=logging.ERROR,
            **({} if cluster.address else local),
        )
    except ConnectionError as error:
        raise UserError(
            f"there is no Ray cluster at cluster.address={cluster.address}; start one (`ray up jobs/ray-aws.yaml`, "
            "`ray start --head`), or leave `+cluster=…` out to use this machine"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def run_tasks(
    task: Callable[[Job], Iterator[Result]], jobs: Iterable[Job], cluster: Cluster, cpus_per_task: int
) -> Iterator[Result]:
    """Yield what `task` yields for each of `jobs`, as it comes. A task whose node is lost starts again."""
    import ray

    remote = ray.remote(num_cpus=cpus_per_task, max_retries=3)(task)
    in_flight = cluster.workers or max(1, int(ray.cluster_resources().get("CPU", 1)) // cpus_per_task)
    waiting = iter(jobs)
    running: list[Any] = [remote.remote(job) for job in islice(waiting, in_flight)]
    ready: Any
    while running:
        (ready,), running = ray.wait(running, num_returns=1)
        try:
            result: Any = ray.get(next(ready))
        except StopIteration:
            running += [remote.remote(job) for job in islice(waiting, 1)]
            continue
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        running.append(ready)
        yield result
