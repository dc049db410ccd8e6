"""What a training step needs of a device's memory, before it is tried.

The weights are single precision, autocast computes. Per parameter that learns: 4 bytes of weight, 4 of gradient, 8 of
AdamW's moments, 4 of the average; ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054) divides some of them among devices.
What the backward pass needs is measured, by a step of tensors without contents whose storages are watched.
"""

import contextlib
import copy
import os
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from conf.options import UserError
from training.model.zero123 import Zero123

GB = 10**9
SINGLE = 4  # bytes of a number in single precision
BUCKETS = 2 * 200_000_000  # numbers in DeepSpeed's buffers, as Lightning sets them
LIVE = 1_000_000_000  # weights that ZeRO-3 holds gathered at a time, DeepSpeed's default
CONTEXT = GB  # of CUDA, NCCL and the libraries' workspaces
FRAGMENTED = 0.05  # of the activations, lost between blocks of memory
COMPILED = 0.65  # of the activations, where kernels are fused; at full size 0.62 on an H200 (docs/benchmarks.md)
PROBES = (64, 128)  # batch sizes that the activations are measured at: there they grow along a line

# What a strategy divides among devices: gradients, moments, weights and the average.
SHARDED = {
    "single": (False, False, False),
    "ddp": (False, False, False),
    "zero1": (False, True, False),
    "zero2": (True, True, False),
    "zero3": (True, True, True),
}


@dataclass(frozen=True)
class Estimate:
    """Bytes on one device. All but the activations stay the same whatever the batch."""

    batch_size: int
    weights: int
    gradients: int
    moments: int  # AdamW's, and the copy of its share of the weights that ZeRO keeps
    average: int
    frozen: int  # autoencoder and image encoder, unless latents are read
    communication: int  # ZeRO's buckets, gathered weights
    per_step: int  # what a step holds whatever its batch: weights cast to the type that it computes in
    per_pair: int  # what the backward pass needs of each pair

    @property
    def state(self) -> int:
        return self.weights + self.gradients + self.moments + self.average + self.frozen + self.communication

    @property
    def activations(self) -> int:
        return self.per_step + self.batch_size * self.per_pair

    @property
    def margin(self) -> int:
        return CONTEXT + int(FRAGMENTED * self.activations)

    @property
    def total(self) -> int:
        return self.state + self.activations + self.margin

    def __str__(self) -> str:
        parts = ("weights", "gradients", "moments", "average", "frozen", "communication", "activations", "margin")
        shown = ", ".join(f"{part} {_gb(getattr(self, part))}" for part in parts if getattr(self, part))
        return f"memory per device: about {_gb(self.total)} GB for {self.batch_size} pairs ({shown})"


def estimate(
    model: Zero123,
    batch_size: int,
    strategy: str = "single",
    devices: int = 1,
    latents: bool = True,
    compute_dtype: torch.dtype = torch.bfloat16,
    checkpointing: bool = False,
    compiled: bool = False,
    activations: tuple[int, int] | None = None,
) -> Estimate:
    """The memory of a step of `batch_size` pairs per device, under one of the strategies in `SHARDED`, on so many
    devices in all. The model may lie anywhere, on torch's meta device too.

    `activations` are those of `measure_activations`, which takes seconds, if they are known already.
    """
    learns = sum(p.numel() for part in (model.unet, model.cc_projection) for p in part.parameters() if p.requires_grad)
    unet = sum(p.numel() for p in model.unet.parameters())
    fixed = sum(p.numel() for p in model.unet.parameters() if not p.requires_grad)
    frozen = sum(p.numel() for part in (model.vae, model.image_encoder) for p in part.parameters())
    share_gradients, share_moments, share_weights = (devices if shared else 1 for shared in SHARDED[strategy])
    partition = SINGLE * learns // devices if share_moments > 1 or strategy.startswith("zero") else 0
    # DDP's gradients are views of its buckets.
    buffers = {"single": 0, "ddp": 0, "zero3": min(learns, LIVE)}.get(strategy, min(2 * learns, BUCKETS))
    per_step, per_pair = activations or measure_activations(model.unet, compute_dtype, checkpointing)
    if compiled and not checkpointing:
        per_pair = int(COMPILED * per_pair)
    return Estimate(
        batch_size=batch_size,
        weights=SINGLE * (learns + fixed) // share_weights,
        gradients=SINGLE * learns // share_gradients,
        moments=2 * SINGLE * learns // share_moments + partition,
        average=SINGLE * unet // share_weights,
        frozen=0 if latents else SINGLE * frozen,
        communication=SINGLE * buffers,
        per_step=per_step,
        per_pair=per_pair,
    )


def largest_batch(estimate: Estimate, available: int) -> int:
    """Pairs per device that fit into so many bytes; 0 where not even one does."""
    left = available - estimate.state - CONTEXT - (1 + FRAGMENTED) * estimate.per_step
    return max(0, int(left / ((1 + FRAGMENTED) * estimate.per_pair)))


def require_fit(estimate: Estimate, available: int | None) -> None:
    """Raises UserError where the batch does not fit into so many bytes; None is unknown and fits."""
    if available is None or estimate.total <= available:
        return
    fits = largest_batch(estimate, available)
    need = f"a batch of {estimate.batch_size} needs about {_gb(estimate.total)} GB of a device's {_gb(available)}"
    if fits:
        raise UserError(f"data.batch_size: {need}; data.batch_size={fits} fits")
    raise UserError(f"{need}, and not even one pair fits; use ZeRO on more devices, or a smaller model")


def available_memory(device: torch.device, processes: int = 1) -> int | None:
    """Bytes that a device has for this process: a GPU's that nobody else holds, or a share of the machine's where
    `processes` train on its CPU. None where it cannot be asked."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    if device.type != "cpu":
        return None
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError):  # no container, or one without a limit
        memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return memory // processes


def measure_activations(unet: UNet2DConditionModel, compute_dtype: torch.dtype, checkpointing: bool) -> tuple[int, int]:
    """Bytes that forward and backward pass hold at most, weights and gradients apart: per step, and per pair."""
    few, many = (_peak(unet, size, compute_dtype, checkpointing) for size in PROBES)
    per_pair = (many - few) // (PROBES[1] - PROBES[0])
    return max(0, many - PROBES[1] * per_pair), per_pair


def _peak(unet: UNet2DConditionModel, batch: int, dtype: torch.dtype, checkpointing: bool) -> int:
    """The most bytes that are alive at a time in a step of `batch` pairs."""
    shape = (batch, unet.config["in_channels"], unet.config["sample_size"], unet.config["sample_size"])
    with FakeTensorMode():
        copied = _without_contents(unet).train()
        if checkpointing:
            copied.enable_gradient_checkpointing()
        else:
            copied.disable_gradient_checkpointing()
        context = torch.empty(batch, 1, unet.config["cross_attention_dim"], requires_grad=True)
        with Storages() as storages:
            with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
                output = copied(torch.empty(shape), torch.zeros(batch), encoder_hidden_states=context).sample
            output.float().square().mean().backward()
    return storages.peak


class Storages(TorchDispatchMode):
    """Counts the bytes of the tensors that are made under it and still alive."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.peak = 0
        self._alive: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._watch(tensor.untyped_storage())
        self.peak = max(self.peak, self.bytes)
        return made

    def _watch(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._alive:
            self.bytes += size
            self._alive[key] = weakref.ref(storage, lambda _: self._forget(key, size))

    def _forget(self, key: int, size: int) -> None:
        del self._alive[key]
        self.bytes -= size


def _without_contents(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """A copy for FakeTensorMode that lies on the CPU but computes in the types of CUDA's autocast, and whose
    gradients vanish: they are counted with the weights."""
    tensors: dict[int, Tensor] = {id(b): torch.empty(b.shape, dtype=b.dtype) for b in unet.buffers()}
    tensors |= {id(p): nn.Parameter(torch.empty(p.shape), p.requires_grad) for p in unet.parameters()}
    copied = copy.deepcopy(unet, tensors)
    for parameter in copied.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(_drop_gradient)
    for module in copied.modules():
        if isinstance(module, nn.GroupNorm | nn.LayerNorm):
            module.forward = _in_single_precision(module.forward)  # type: ignore[assignment,method-assign]
    return copied


def _drop_gradient(parameter: Tensor) -> None:
    parameter.grad = None


def _in_single_precision(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """What CUDA's autocast does to norms, and the CPU's does not."""

    def cast(x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return forward(x.float())

    return cast


def _gb(size: int) -> str:
    return f"{size / GB:.1f}" if size >= GB / 10 else f"{size / GB:.3f}"
