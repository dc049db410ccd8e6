"""Estimate the device memory of a training step without running it.

Weights are float32 and forward passes autocast. A trained parameter takes 4 bytes of weight, 4 of gradient, 8 of
AdamW's moments and 4 of the moving average; ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054) shards some of them.
Activations are measured by `training.model.hardware.activations`.
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from conf.options import UserError
from training.model.hardware.activations import Activations, measure_activations
from training.model.zero123 import Zero123

GB = 10**9
FLOAT32_BYTES = 4
ZERO_BUFFER_NUMBERS = 2 * 200_000_000  # in DeepSpeed's two buckets, Lightning's default
ZERO3_LIVE_WEIGHTS = 1_000_000_000  # gathered at a time by ZeRO-3, DeepSpeed's default
CONTEXT_BYTES = GB  # CUDA context, NCCL and workspaces of libraries
FRAGMENTATION = 0.05  # of the activations, lost in the allocator


class Sharded(NamedTuple):
    """The parts of the training state that a strategy shards among devices."""

    gradients: bool
    moments: bool
    weights: bool  # and their moving average


SHARDED = {
    "single": Sharded(gradients=False, moments=False, weights=False),
    "ddp": Sharded(gradients=False, moments=False, weights=False),
    "zero1": Sharded(gradients=False, moments=True, weights=False),
    "zero2": Sharded(gradients=True, moments=True, weights=False),
    "zero3": Sharded(gradients=True, moments=True, weights=True),
}


@dataclass(frozen=True)
class Estimate:
    """Bytes on one device. Only the activations depend on the batch size."""

    batch_size: int
    weights: int
    gradients: int
    moments: int  # AdamW's, and ZeRO's copy of its shard of the weights
    average: int
    frozen: int  # autoencoder and image encoder
    communication: int  # ZeRO's buckets or gathered weights
    per_step: int  # activations for any batch size, such as weights cast by autocast
    per_pair: int  # activations of each pair

    @property
    def state(self) -> int:
        """Bytes that do not depend on the batch size, without activations."""
        return self.weights + self.gradients + self.moments + self.average + self.frozen + self.communication

    @property
    def activations(self) -> int:
        """Bytes of the activations."""
        return self.per_step + self.batch_size * self.per_pair

    @property
    def margin(self) -> int:
        """Bytes of the CUDA context and of fragmentation."""
        return CONTEXT_BYTES + int(FRAGMENTATION * self.activations)

    @property
    def total(self) -> int:
        """Bytes of everything."""
        return self.state + self.activations + self.margin

    def __str__(self) -> str:
        parts = ("weights", "gradients", "moments", "average", "frozen", "communication", "activations", "margin")
        shown = ", ".join(f"{part} {_gb(getattr(self, part))}" for part in parts if getattr(self, part))
        return f"memory per device: about {_gb(self.total)} GB for {self.batch_size} pairs ({shown})"


class Shards(NamedTuple):
    """Number of devices that share each part of the training state."""

    gradients: int
    moments: int
    weights: int


def estimate(
    model: Zero123,
    batch_size: int,
    strategy: str = "single",
    devices: int = 1,
    latents: bool = True,
    compute_dtype: torch.dtype = torch.bfloat16,
    checkpointing: bool = False,
    compiled: bool = False,
    activations: Activations | None = None,
) -> Estimate:
    """Estimate the memory of a training step.

    Args:
        model: The model, on any device, torch's meta device included.
        batch_size: Pairs per device and pass.
        strategy: A strategy in `SHARDED`.
        devices: Number of devices of the run.
        latents: Cached latents are read, so that the encoders, though on the device, do not run in a step.
        compute_dtype: Type of autocast.
        checkpointing: Activations are recomputed in the backward pass.
        compiled: The U-Net is compiled.
        activations: Result of `measure_activations`, which takes seconds, if it is known.
    """
    parts = (model.unet, model.cc_projection, model.image_encoder)
    trained = sum(p.numel() for part in parts for p in part.parameters() if p.requires_grad)
    learned_encoder = sum(p.numel() for p in model.image_encoder.parameters() if p.requires_grad)
    averaged = sum(p.numel() for p in model.unet.parameters()) + learned_encoder
    untrained = sum(p.numel() for p in model.unet.parameters() if not p.requires_grad)
    encoders = (model.vae, model.image_encoder)
    frozen = sum(p.numel() for part in encoders for p in part.parameters() if not p.requires_grad)
    shards = Shards(*(devices if sharded else 1 for sharded in SHARDED[strategy]))
    partition = FLOAT32_BYTES * trained // devices if shards.moments > 1 or strategy.startswith("zero") else 0
    # DDP needs no buffers, because its gradients are views of its buckets.
    buffers = {"single": 0, "ddp": 0, "zero3": min(trained, ZERO3_LIVE_WEIGHTS)}.get(
        strategy, min(2 * trained, ZERO_BUFFER_NUMBERS)
    )
    per_step, per_pair = activations or measure_activations(model, compute_dtype, checkpointing, compiled, latents)
    return Estimate(
        batch_size=batch_size,
        weights=FLOAT32_BYTES * (trained + untrained) // shards.weights,
        gradients=FLOAT32_BYTES * trained // shards.gradients,
        moments=2 * FLOAT32_BYTES * trained // shards.moments + partition,
        average=FLOAT32_BYTES * averaged // shards.weights,
        frozen=FLOAT32_BYTES * frozen,
        communication=FLOAT32_BYTES * buffers,
        per_step=per_step,
        per_pair=per_pair,
    )


def largest_batch(estimate: Estimate, available: int) -> int:
    """Return the largest number of pairs per device that fits into `available` bytes, 0 if none does."""
    left = available - estimate.state - CONTEXT_BYTES - (1 + FRAGMENTATION) * estimate.per_step
    return max(0, int(left / ((1 + FRAGMENTATION) * estimate.per_pair)))


def require_fit(estimate: Estimate, available: int | None) -> None:
    """Check that a step fits into `available` bytes; None is unknown and passes.

    Raises:
        UserError: It does not fit.
    """
    if available is None or estimate.total <= available:
        return
    fits = largest_batch(estimate, available)
    need = f"needs about {_gb(estimate.total)} GB of a device's {_gb(available)}"
    if fits:
        raise UserError(f"data.batch_size={estimate.batch_size}: {need}; use data.batch_size={fits}")
    raise UserError(f"model: a step {need}, and not even one pair fits; use ZeRO on more devices, or a smaller model")


def available_memory(device: torch.device, processes: int = 1) -> int | None:
    """Return the bytes that a device has for this process, None for an unknown kind of device.

    Args:
        device: A GPU, of which memory that other processes use is excluded, or the CPU.
        processes: Processes that share the CPU's memory.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    if device.type != "cpu":
        return None
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError):  # not in a container, or no limit
        memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return memory // processes


def _gb(size: int) -> str:
    return f"{size / GB:.1f}" if size >= GB / 10 else f"{size / GB:.3f}"
