"""The processes of a run: how many there are, which one this is, and how a batch is divided among them.

Whoever starts them says so in the environment: torchrun and Ray Train (WORLD_SIZE, LOCAL_WORLD_SIZE, RANK), Slurm
(SLURM_NTASKS, SLURM_NNODES, SLURM_PROCID). Without a word from anyone Lightning starts one for each device.
"""

import os
from dataclasses import dataclass

import torch

from conf.options import UserError
from training.config import TrainerConfig


@dataclass(frozen=True)
class Topology:
    nodes: int
    devices: int  # of each node
    gpu: bool

    @property
    def size(self) -> int:
        return self.nodes * self.devices


@dataclass(frozen=True)
class BatchPlan:
    """How a device comes by its share of the global batch: `accumulate` passes of `size` pairs."""

    size: int
    accumulate: int


def topology(options: TrainerConfig) -> Topology:
    """The processes at hand.

    Raises:
        UserError: a GPU that is asked for is not there, or the processes are not what the configuration says.
    """
    if options.accelerator not in ("auto", "cpu", "gpu"):
        raise UserError(f"trainer.accelerator={options.accelerator} is none of auto, cpu, gpu")
    gpus = torch.cuda.device_count() if options.accelerator != "cpu" else 0
    if options.accelerator == "gpu" and not gpus:
        raise UserError("trainer.accelerator=gpu: this machine has no GPU that torch can use; use cpu or auto")
    started = _started()
    nodes, devices = started or (options.num_nodes or 1, options.devices or gpus or 1)
    for name, asked, found in (("num_nodes", options.num_nodes, nodes), ("devices", options.devices, devices)):
        if asked and asked != found:
            raise UserError(f"trainer.{name}={asked}, but whoever started this process made {found}; let them agree")
    if gpus and devices > gpus:
        raise UserError(f"trainer.devices={devices}: this machine has {gpus} GPUs")
    return Topology(nodes, devices, gpu=gpus > 0)


def plan_batches(global_batch: int, most: int, devices: int) -> BatchPlan:
    """The largest batch of at most `most` pairs that whole passes on every device make the global batch of.

    Raises:
        UserError: the global batch cannot be shared equally.
    """
    if global_batch % devices:
        near = max(1, round(global_batch / devices)) * devices
        raise UserError(f"data.global_batch={global_batch} cannot be shared by {devices} devices; use {near}")
    share = global_batch // devices
    size = next(size for size in range(min(most, share), 0, -1) if share % size == 0)
    return BatchPlan(size, share // size)


def is_rank_zero() -> bool:
    """Whether this process speaks for all: the one that prints and writes what there is one of."""
    named = (os.environ.get(name) for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"))
    return next((rank for rank in named if rank is not None), "0") == "0"


def local_rank() -> int:
    """This process' number among those of its machine, hence that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")))


def _started() -> tuple[int, int] | None:
    """Nodes and processes of each, where somebody else started them."""
    env = os.environ
    if "LOCAL_WORLD_SIZE" in env:
        size, local = int(env["WORLD_SIZE"]), int(env["LOCAL_WORLD_SIZE"])
    elif "SLURM_NTASKS" in env and env.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        size = int(env["SLURM_NTASKS"])
        local = size // int(env.get("SLURM_NNODES", "1"))
    else:
        return None
    if size % local:
        raise UserError(f"{size} processes over nodes of {local}: every node must run as many as the others")
    return size // local, local
