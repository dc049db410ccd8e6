"""Measure the activations of a training step without running it: on fake tensors, whose storages are counted."""

import copy
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import CLIPVisionModelWithProjection

from training.model.autoencoder import Autoencoder
from training.model.conditioning import embed
from training.model.context import apply_unet
from training.model.zero123 import Zero123

Module = TypeVar("Module", bound=nn.Module)
COMPILED_SHARE = 0.65  # of the U-Net's activations, with fused kernels; measured 0.62 on an H200 (docs/benchmarks.md)
PROBE_BATCH_SIZES = (64, 128)  # activations are linear in the batch size between and above them


class Activations(NamedTuple):
    """Bytes of the activations of a step: a constant and a multiple of the batch size."""

    per_step: int
    per_pair: int


def measure_activations(
    model: Zero123,
    compute_dtype: torch.dtype,
    checkpointing: bool = False,
    compiled: bool = False,
    latents: bool = True,
) -> Activations:
    """Measure the peak of a step, without weights and gradients.

    Args:
        model: The model, on any device.
        compute_dtype: Type of autocast.
        checkpointing: Activations of the U-Net are recomputed in the backward pass.
        compiled: The U-Net is compiled.
        latents: Cached latents are read; else the autoencoder encodes each pair, before the other parts run.
    """

    def run_unet(unet: UNet2DConditionModel, batch: int) -> Tensor:
        unet.train()  # in evaluation nothing is recomputed
        if checkpointing:
            unet.enable_gradient_checkpointing()
        else:
            unet.disable_gradient_checkpointing()
        latent = torch.empty(batch, unet.config["in_channels"], model.latent_size, model.latent_size)
        context = torch.empty(batch, 1, unet.config["cross_attention_dim"], requires_grad=True)
        return apply_unet(unet, latent, torch.zeros(batch), context)

    def run_encoder(encoder: CLIPVisionModelWithProjection, batch: int) -> Tensor:
        return embed(encoder, torch.empty(batch, 3, model.resolution, model.resolution))

    def run_vae(vae: Autoencoder, batch: int) -> Tensor:
        with torch.no_grad():
            return vae.encode(torch.empty(batch, 3, model.resolution, model.resolution)).latent_dist.mode()

    per_step, per_pair = _measure(model.unet, run_unet, compute_dtype)
    if compiled and not checkpointing:
        per_pair = int(COMPILED_SHARE * per_pair)
    if any(weight.requires_grad for weight in model.image_encoder.parameters()):
        encoder = _measure(model.image_encoder, run_encoder, compute_dtype)
        per_step, per_pair = per_step + encoder.per_step, per_pair + encoder.per_pair
    if latents:
        return Activations(per_step, per_pair)
    vae = _measure(model.vae, run_vae, compute_dtype)
    return Activations(max(per_step, vae.per_step), max(per_pair, vae.per_pair))


def _measure(module: Module, run: Callable[[Module, int], Tensor], dtype: torch.dtype) -> Activations:
    """Return the peak of `run(module, batch)` and its backward pass, as a line through two batch sizes."""
    few, many = (_peak(module, run, size, dtype) for size in PROBE_BATCH_SIZES)
    per_pair = (many - few) // (PROBE_BATCH_SIZES[1] - PROBE_BATCH_SIZES[0])
    return Activations(max(0, many - PROBE_BATCH_SIZES[1] * per_pair), per_pair)


def _peak(module: Module, run: Callable[[Module, int], Tensor], batch: int, dtype: torch.dtype) -> int:
    """Return the largest number of bytes that are alive at a time."""
    with FakeTensorMode():
        copied = _fake_copy(module)
        with Storages() as storages:
            with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
                output = run(copied, batch)
            if output.requires_grad:
                output.float().square().mean().backward()
    return storages.peak


class Storages(TorchDispatchMode):
    """Count the bytes of living tensors that are created under this mode."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.peak = 0
        self._alive: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._watch(tensor.untyped_storage())
        self.peak = max(self.peak, self.bytes)
        return result

    def _watch(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._alive:
            self.bytes += size
            self._alive[key] = weakref.ref(storage, lambda _: self._forget(key, size))

    def _forget(self, key: int, size: int) -> None:
        del self._alive[key]
        self.bytes -= size


def _fake_copy(module: Module) -> Module:
    """Return a copy for FakeTensorMode on the CPU, with the types of CUDA's autocast.

    Its gradients are dropped, because the estimate counts them with the weights.
    """
    tensors: dict[int, Tensor] = {id(b): torch.empty(b.shape, dtype=b.dtype) for b in module.buffers()}
    tensors |= {id(p): nn.Parameter(torch.empty(p.shape), p.requires_grad) for p in module.parameters()}
    copied = copy.deepcopy(module, tensors)
    for parameter in copied.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(_drop_gradient)
    for norm in copied.modules():
        if isinstance(norm, nn.GroupNorm | nn.LayerNorm):
            norm.forward = _in_float32(norm.forward)  # type: ignore[assignment,method-assign]
    return copied


def _drop_gradient(parameter: Tensor) -> None:
    parameter.grad = None


def _in_float32(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Compute a norm in float32, as CUDA's autocast does and the CPU's does not."""

    def cast(x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return forward(x.float())

    return cast
