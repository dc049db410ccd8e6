"""Compile a U-Net for the shapes of its batches."""

import warnings

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

MAX_COMPILED_SHAPES = 64  # batch sizes, layouts and modes that a process may compile for; torch's default is 8


def compile_unet(unet: UNet2DConditionModel, mode: str = "default") -> None:
    """Compile a U-Net in place, for each shape of its inputs at the first call; further shapes run uncompiled.

    Args:
        unet: The U-Net.
        mode: Mode of torch.compile.
    """
    warnings.filterwarnings("ignore", ".*functools.lru_cache")  # diffusers reads torch's version in the graph
    torch._dynamo.config.recompile_limit = MAX_COMPILED_SHAPES
    unet.compile(mode=mode, dynamic=False)
