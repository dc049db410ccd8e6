"""Settings that make a training step faster without changing its result: TF32, memory layout, compilation."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from training.model.compilation import compile_unet
from training.model.fused_projections import fuse_projections


def allow_tensor_cores(autotune: bool = True) -> None:
    """Compute float32 matrix products and convolutions in TF32.

    Args:
        autotune: Let cuDNN time its convolution algorithms and keep the fastest. Another process may keep another
            algorithm, whose results differ in the last bits.
    """
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = autotune


class ChannelsLast(torch.autograd.Function):
    """Lay out a tensor and its gradient with channels last, `[B, H, W, C]` in memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Return `x` with channels last."""
        return x.contiguous(memory_format=torch.channels_last)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Return the gradient with channels last."""
        return gradients[0].contiguous(memory_format=torch.channels_last)


class ChannelsLastConv2d(nn.Conv2d):
    """A convolution whose input, output, weight and their gradients have channels last.

    Without this, torch copies every tensor of another layout, such as the output of a group norm in a compiled
    backward pass. Where the layout is requested, the kernel that produces the tensor writes it directly. The weight
    is converted too because ZeRO stores weights contiguously.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Convolve `[B, C, H, W]`."""
        weight = self.weight.contiguous(memory_format=torch.channels_last)
        return ChannelsLast.apply(self._conv_forward(ChannelsLast.apply(input), weight, self.bias))


def prepare(
    unet: UNet2DConditionModel,
    channels_last: bool = True,
    compile: bool = True,
    checkpointing: bool = False,
    products: bool = True,
) -> None:
    """Set up a U-Net for training, in place. Names and values of its weights do not change.

    Args:
        unet: The U-Net.
        channels_last: Use channels-last memory layout. It pays where the U-Net is compiled, because torch's own group
            norm on a GPU writes contiguous tensors.
        compile: Compile the U-Net at the first step of each batch size, which takes a minute or more at full size.
        checkpointing: Store only the inputs of blocks and recompute their activations in the backward pass: a third
            more arithmetic for a fraction of the memory.
        products: Fuse and split matrix products as in `training.model.fused_projections`.
    """
    unet.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)  # type: ignore[call-arg]
    _replace_convolutions(unet, ChannelsLastConv2d if channels_last else nn.Conv2d)
    fuse_projections(unet, products)
    if checkpointing:
        unet.enable_gradient_checkpointing()
    else:
        unet.disable_gradient_checkpointing()
    unet._compiled_call_impl = None
    if compile:
        compile_unet(unet)


@contextmanager
def uncompiled(unet: UNet2DConditionModel) -> Iterator[None]:
    """Run a U-Net uncompiled for a while, because every input shape other than the training step's would compile."""
    compiled, unet._compiled_call_impl = unet._compiled_call_impl, None
    try:
        yield
    finally:
        unet._compiled_call_impl = compiled


def _replace_convolutions(module: nn.Module, kind: type[nn.Conv2d]) -> None:
    """Replace every 2D convolution in `module` by one of class `kind` with the same parameters."""
    replacements: dict[nn.Module, nn.Conv2d] = {}  # a module may be registered under two names
    for path, child in list(module.named_modules(remove_duplicate=False)):
        if isinstance(child, nn.Conv2d) and type(child) is not kind:
            if child not in replacements:
                replacements[child] = _convolution_like(child, kind)
            module.set_submodule(path, replacements[child])


def _convolution_like(source: nn.Conv2d, kind: type[nn.Conv2d]) -> nn.Conv2d:
    """Return a convolution of class `kind` that shares the parameters of `source`."""
    convolution = kind(
        source.in_channels,
        source.out_channels,
        source.kernel_size,  # type: ignore[arg-type]  # of any length in torch's stubs
        source.stride,  # type: ignore[arg-type]
        source.padding,  # type: ignore[arg-type]
        source.dilation,  # type: ignore[arg-type]
        source.groups,
        source.bias is not None,
        source.padding_mode,
        device="meta",  # takes no memory and draws no random numbers
    )
    convolution.weight, convolution.bias = source.weight, source.bias
    return convolution.train(source.training)
