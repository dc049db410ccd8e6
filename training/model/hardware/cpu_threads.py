"""CPU threads of torch beside other programs."""

import os

import psutil
import torch

MEASUREMENT_S = 0.3


def use_free_cores(processes: int = 1) -> None:
    """Reduce torch's threads to the cores that are idle now.

    The threads of a small network meet at a barrier many times per step, where all wait for one that shares its core
    with another program. Fewer threads are then faster (docs/log.md, "OpenMP threads beside other programs").
    `OMP_NUM_THREADS` takes precedence.

    Args:
        processes: Number of processes that divide the idle cores among themselves.
    """
    if "OMP_NUM_THREADS" in os.environ:
        return
    usage_percent = psutil.cpu_percent(MEASUREMENT_S, percpu=True)
    cores = psutil.Process().cpu_affinity() if psutil.LINUX else range(len(usage_percent))
    # A core that is offline is missing from the list, so that the last cores may have no place in it.
    idle = sum(1 - usage_percent[core] / 100 for core in cores if core < len(usage_percent))
    torch.set_num_threads(max(1, min(torch.get_num_threads(), round(idle / processes))))
