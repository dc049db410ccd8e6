"""What makes a step fast and leaves its meaning alone: number formats of the hardware, memory layout, compilation."""

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

COMPILED_SHAPES = 64  # batch sizes, layouts and modes that one process may compile for; torch gives up after 8


def allow_tensor_cores(autotune: bool = True) -> None:
    """Let matrices of single precision be multiplied as TF32; `autotune` lets cuDNN try its convolutions and keep
    the fastest, which may not be the same one, to the last bit, in the next process."""
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = autotune


def prepare(
    unet: UNet2DConditionModel, channels_last: bool = True, compile: bool = True, checkpointing: bool = False
) -> None:
    """Set up a U-Net for training, in place; names and values of its weights stay what they were.

    `channels_last` pays where the U-Net is compiled: torch's own group norm on a GPU writes the other layout.
    `compile` builds kernels at the first step of each batch size, which takes a minute or more at full size.
    `checkpointing` keeps only the inputs of blocks for the backward pass and computes the rest again: a third more
    arithmetic for a fraction of the memory.
    """
    unet.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)  # type: ignore[call-arg]
    if checkpointing:
        unet.enable_gradient_checkpointing()
    else:
        unet.disable_gradient_checkpointing()
    unet._compiled_call_impl = None
    if compile:
        torch._dynamo.config.recompile_limit = COMPILED_SHAPES
        unet.compile(dynamic=False)
