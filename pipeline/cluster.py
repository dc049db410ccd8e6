"""Ray: start or join a cluster, run shard tasks with a bounded number in flight."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from conf.options import UserError
from pipeline.config import Cluster

Job = TypeVar("Job")
Result = TypeVar("Result")


def run_tasks(
    task: Callable[[Job], Iterator[Result]], jobs: Iterable[Job], cluster: Cluster, cpus_per_task: int
) -> Iterator[Result]:
    """Yield what `task` yields for each of `jobs`, in the order in which it comes. A task whose node is lost
    starts again.

    Raises:
        UserError: no cluster at `cluster.address`.
    """
    # Ray phones home unless it is told not to before it is imported.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    try:
        ray.init(
            address=cluster.address,
            num_cpus=None if cluster.address else (cluster.workers or os.cpu_count() or 1) * cpus_per_task,
            object_store_memory=None if cluster.address else 200 * 2**20,
            include_dashboard=None if cluster.address else False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except ConnectionError as error:
        raise UserError(
            f"there is no Ray cluster at cluster.address={cluster.address}; start one (`ray up jobs/ray-aws.yaml`, "
            "`ray start --head`), or leave `+cluster=…` out to use this machine"
        ) from error
    try:
        remote = ray.remote(num_cpus=cpus_per_task, max_retries=3)(task)
        in_flight = cluster.workers or max(1, int(ray.cluster_resources().get("CPU", 1)) // cpus_per_task)
        waiting, running = iter(jobs), []
        while True:
            while len(running) < in_flight and (job := next(waiting, None)) is not None:
                running.append(remote.remote(job))
            if not running:
                return
            (ready,), running = ray.wait(running, num_returns=1)
            try:
                result = ray.get(next(ready))
            except StopIteration:
                continue
            running.append(ready)
            yield result
    finally:
        ray.shutdown()
