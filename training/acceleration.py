"""What makes a step fast and leaves its meaning alone: number formats of the hardware, memory layout, compilation."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from training.model.fused_projections import fuse_projections

COMPILED_SHAPES = 64  # batch sizes, layouts and modes that one process may compile for; torch gives up after 8


def allow_tensor_cores(autotune: bool = True) -> None:
    """Let matrices of single precision be multiplied as TF32; `autotune` lets cuDNN try its convolutions and keep
    the fastest, which may not be the same one, to the last bit, in the next process."""
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = autotune


class ChannelsLast(torch.autograd.Function):
    """The same numbers, laid out with their channels last, and so their gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=torch.channels_last)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].contiguous(memory_format=torch.channels_last)


class ChannelsLastConv2d(nn.Conv2d):
    """A convolution whose tensors and gradients all have their channels last. Torch would copy those that have not, one
    by one, which in a compiled backward pass is whatever comes out of a group norm; what is asked for here is written
    that way by the kernel that makes it. ZeRO lays weights out its own way, hence theirs too."""

    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight.contiguous(memory_format=torch.channels_last)
        return ChannelsLast.apply(self._conv_forward(ChannelsLast.apply(input), weight, self.bias))


def prepare(
    unet: UNet2DConditionModel,
    channels_last: bool = True,
    compile: bool = True,
    checkpointing: bool = False,
    products: bool = True,
) -> None:
    """Set up a U-Net for training, in place; names and values of its weights stay what they were.

    `channels_last` pays where the U-Net is compiled: torch's own group norm on a GPU writes the other layout.
    `compile` builds kernels at the first step of each batch size, which takes a minute or more at full size.
    `checkpointing` keeps only the inputs of blocks for the backward pass and computes the rest again: a third more
    arithmetic for a fraction of the memory. `products` cuts them as `training.model.fused_projections` says.
    """
    unet.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)  # type: ignore[call-arg]
    for module in unet.modules():
        if isinstance(module, nn.Conv2d):
            module.__class__ = ChannelsLastConv2d if channels_last else nn.Conv2d
    fuse_projections(unet, products)
    if checkpointing:
        unet.enable_gradient_checkpointing()
    else:
        unet.disable_gradient_checkpointing()
    unet._compiled_call_impl = None
    if compile:
        warnings.filterwarnings("ignore", ".*functools.lru_cache")  # diffusers asks for torch's version, no more
        torch._dynamo.config.recompile_limit = COMPILED_SHAPES
        unet.compile(dynamic=False)


@contextmanager
def uncompiled(unet: UNet2DConditionModel) -> Iterator[None]:
    """Run as it is written for a while: passes of other shapes than the training step's would each be compiled."""
    compiled, unet._compiled_call_impl = unet._compiled_call_impl, None
    try:
        yield
    finally:
        unet._compiled_call_impl = compiled
