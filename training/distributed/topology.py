"""The processes of a run: their number, the rank of this one, and the division of a batch among them.

The launcher states them in the environment: torchrun and Ray Train in WORLD_SIZE, LOCAL_WORLD_SIZE and RANK, Slurm in
SLURM_NTASKS, SLURM_NNODES and SLURM_PROCID. Without a launcher, Lightning starts one process per device.
"""

import os
from dataclasses import dataclass

import torch

from conf.options import UserError
from training.config import TrainerConfig

SMALLEST_PASS = 4  # a pass has at least this fraction, 1/4, of the pairs that it may have, lest devices be idle


@dataclass(frozen=True)
class Topology:
    """The processes of a run, one per device.

    Attributes:
        nodes: Number of machines.
        devices: Devices of each machine.
        gpu: Whether the devices are GPUs.
    """

    nodes: int
    devices: int
    gpu: bool

    @property
    def size(self) -> int:
        """The number of processes."""
        return self.nodes * self.devices


@dataclass(frozen=True)
class BatchPlan:
    """A device's share of the global batch: `accumulate` passes of `size` pairs."""

    size: int
    accumulate: int


def topology(options: TrainerConfig) -> Topology:
    """Return the processes of this run.

    Raises:
        UserError: The machine lacks a requested GPU, the launcher started other processes than configured, or there
            is none for several machines.
    """
    gpus = torch.cuda.device_count() if options.device != "cpu" else 0
    if options.device == "cuda" and not gpus:
        raise UserError(
            f"trainer.accelerator={options.accelerator}: this machine has no GPU that torch can use; use cpu or auto"
        )
    launched = _launched()
    if options.num_nodes > 1 and not launched:
        raise UserError(
            f"trainer.num_nodes={options.num_nodes}: nothing started the other machines; run jobs/train-torchrun.sh on "
            "each of them, or use Slurm (jobs/train-slurm.sh)"
        )
    nodes, devices = launched or (1, options.devices or gpus or 1)
    for name, option, started in (("num_nodes", options.num_nodes, nodes), ("devices", options.devices, devices)):
        if option and option != started:
            raise UserError(f"trainer.{name}={option}: the launcher started {started}; use the same number in both")
    if gpus and devices > gpus and launched and "LOCAL_WORLD_SIZE" not in os.environ:
        raise UserError(
            f"Slurm started {devices} tasks on each node, and each sees only {gpus} GPUs; request GPUs with "
            "--gpus-per-node, without --gpus-per-task or --gpu-bind"
        )
    if gpus and devices > gpus:
        raise UserError(f"trainer.devices={devices}: this machine has {gpus} GPUs; use at most that many")
    return Topology(nodes, devices, gpu=gpus > 0)


def plan_batches(global_batch: int, max_size: int, devices: int) -> BatchPlan:
    """Return the largest batch per pass, of at most `max_size` pairs, that divides each device's share.

    Raises:
        UserError: The devices cannot share the global batch equally, or only in passes of few pairs, which are slow.
    """
    if global_batch % devices:
        nearest = max(1, round(global_batch / devices)) * devices
        raise UserError(f"data.global_batch={global_batch}: not a multiple of {devices} devices; use {nearest}")
    share = global_batch // devices
    size = _largest_divisor(share, max_size)
    if size < min(max_size, share) // SMALLEST_PASS:
        shares = sorted(range(1, 2 * share), key=lambda other: abs(other - share))
        better = next(s for s in shares if _largest_divisor(s, max_size) >= min(max_size, s) / 2)
        raise UserError(
            f"data.global_batch={global_batch}: {devices} devices would take passes of {size} instead of up to "
            f"data.batch_size={max_size} pairs; use data.global_batch={better * devices}"
        )
    return BatchPlan(size, share // size)


def _largest_divisor(number: int, limit: int) -> int:
    """Return the largest divisor of a number that is at most `limit`."""
    return next(size for size in range(min(limit, number), 0, -1) if number % size == 0)


def global_rank() -> int:
    """Return the rank of this process in the run."""
    values = (os.environ.get(name) for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"))
    return int(next((rank for rank in values if rank is not None), "0"))


def is_rank_zero() -> bool:
    """Return whether this process is the one that prints and writes files."""
    return global_rank() == 0


def local_rank() -> int:
    """Return the rank of this process on its machine, which is the index of its GPU."""
    return int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")))


def _launched() -> tuple[int, int] | None:
    """Return the numbers of nodes and of processes per node that a launcher started, None without a launcher."""
    env = os.environ
    if "LOCAL_WORLD_SIZE" in env:
        size, local = int(env["WORLD_SIZE"]), int(env["LOCAL_WORLD_SIZE"])
    elif "SLURM_NTASKS" in env and env.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        size = int(env["SLURM_NTASKS"])
        local = size // int(env.get("SLURM_NNODES", "1"))
    else:
        return None
    if size % local:
        raise UserError(
            f"WORLD_SIZE={size}: not a multiple of {local} processes per node; start equally many on every node"
        )
    return size // local, local
