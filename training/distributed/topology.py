"""The processes of a run: their number, the rank of this one, and the division of a batch among them.

The launcher states them in the environment: torchrun and Ray Train in WORLD_SIZE, LOCAL_WORLD_SIZE and RANK, Slurm in
SLURM_NTASKS, SLURM_NNODES and SLURM_PROCID. Without a launcher, Lightning starts one process per device.
"""

import os
from dataclasses import dataclass

import torch

from conf.options import UserError
from training.config import TrainerConfig


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
        UserError: The machine lacks a requested GPU, or the launcher started other processes than configured.
    """
    gpus = torch.cuda.device_count() if options.device != "cpu" else 0
    if options.device == "cuda" and not gpus:
        raise UserError(
            f"trainer.accelerator={options.accelerator}: this machine has no GPU that torch can use; use cpu or auto"
        )
    launched = _launched()
    nodes, devices = launched or (options.num_nodes or 1, options.devices or gpus or 1)
    for name, option, started in (("num_nodes", options.num_nodes, nodes), ("devices", options.devices, devices)):
        if option and option != started:
            raise UserError(f"trainer.{name}={option}: the launcher started {started}; use the same number in both")
    if gpus and devices > gpus:
        raise UserError(f"trainer.devices={devices}: this machine has {gpus} GPUs; use at most that many")
    return Topology(nodes, devices, gpu=gpus > 0)


def plan_batches(global_batch: int, max_size: int, devices: int) -> BatchPlan:
    """Return the largest batch per pass, of at most `max_size` pairs, that divides each device's share.

    Raises:
        UserError: The devices cannot share the global batch equally.
    """
    if global_batch % devices:
        nearest = max(1, round(global_batch / devices)) * devices
        raise UserError(f"data.global_batch={global_batch}: not a multiple of {devices} devices; use {nearest}")
    share = global_batch // devices
    size = next(size for size in range(min(max_size, share), 0, -1) if share % size == 0)
    return BatchPlan(size, share // size)


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
