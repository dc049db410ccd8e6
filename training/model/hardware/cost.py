"""Floating point operations of a model, counted from its modules, and peak FLOP/s of GPUs.

A multiply-add is two operations. Convolutions, linear layers and attention count; norms, activations and additions do
not. A training step counts as three forward passes, two of them for the backward pass (Kaplan et al. 2020, arXiv
2001.08361); activations recomputed for checkpointing count once.
"""

import copy
import re
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from training.model.context import apply_unet
from training.model.zero123 import Zero123

Module = TypeVar("Module", bound=nn.Module)
BACKWARD_PASSES = 2  # cost of the backward pass in forward passes

# Peak FLOP/s of dense matrix products in (bfloat16, float32), the latter as TF32 where a GPU has it, as in training.
# From NVIDIA's data sheets, halved where they state the figure with sparsity. A longer name comes before its prefix.
# Lightning's table is not used: its H200 and H100 NVL include sparsity, its bfloat16 of A40 is too low.
PEAK_FLOPS = {
    "B200": (2250e12, 1125e12),
    "H200 NVL": (835e12, 417e12),
    "GH200": (989e12, 494e12),
    "H200": (989e12, 494e12),
    "H100 PCIe": (756e12, 378e12),
    "H100 NVL": (835e12, 417e12),
    "H100": (989e12, 494e12),  # SXM, "H100 80GB HBM3"
    "A100": (312e12, 156e12),
    "A40": (149.7e12, 74.8e12),
    "A30": (165e12, 82e12),
    "A10G": (70e12, 35e12),
    "A10": (125e12, 62.5e12),
    "L40S": (362e12, 183e12),
    "L40": (181e12, 90.5e12),
    "L4": (121e12, 60e12),
    "RTX 4090": (165.2e12, 82.6e12),
    "RTX 3090": (71e12, 35.6e12),
    "V100-SXM2": (None, 15.7e12),
    "V100-PCIE": (None, 14e12),
    "T4": (None, 8.1e12),
}
SLOWER_VARIANTS = {"MIG", "Laptop", "D"}  # words in names of slices of a GPU and of slower variants
PEAK_FLOPS_FP16 = {"V100-SXM2": 125e12, "V100-PCIE": 112e12, "T4": 65e12}  # float16, of GPUs without bfloat16


def unet_flops(unet: UNet2DConditionModel) -> int:
    """Return the operations of one forward pass for one image.

    176.3e9 for Stable Diffusion v1 at 32² latents with eight input channels and one context token, 169.9e9 with the
    shortcut of `training.model.attention`.
    """
    size, channels = unet.config["sample_size"], unet.config["in_channels"]
    latent = torch.empty(1, channels, size, size, device="meta")
    context = torch.empty(1, 1, unet.config["cross_attention_dim"], device="meta")
    return _count(unet, partial(apply_unet, input=latent, timesteps=torch.zeros(1, device="meta"), context=context))


def encoding_flops(model: Zero123) -> int:
    """Return the operations of encoding one pair: both images (autoencoder) and the condition (image encoder)."""
    picture = torch.empty(1, 3, model.resolution, model.resolution, device="meta")
    vae = _count(model.vae, lambda vae: vae.encode(picture).latent_dist.mode())
    return 2 * vae + _encoder_flops(model)


def _encoder_flops(model: Zero123) -> int:
    pixels = model.image_encoder.config.image_size
    input = torch.empty(1, 3, pixels, pixels, device="meta")
    return _count(model.image_encoder, lambda encoder: encoder(input))


def step_flops(model: Zero123) -> int:
    """Return the operations of training on one image: 529e9 for Stable Diffusion v1 at 32² latents.

    Those of the image encoder count where it is trained, and those of frozen parts never.
    """
    trains_encoder = any(weight.requires_grad for weight in model.image_encoder.parameters())
    return (1 + BACKWARD_PASSES) * (unet_flops(model.unet) + trains_encoder * _encoder_flops(model))


def peak_flops(device_name: str, dtype: torch.dtype) -> float | None:
    """Return the peak FLOP/s of a GPU by the name that torch reports, or None if it is not in the table."""
    name = next((name for name in PEAK_FLOPS if re.search(rf"\b{name}\b", device_name)), None)
    if name is None or SLOWER_VARIANTS & set(device_name.split()):
        return None
    if dtype is torch.float16:
        return PEAK_FLOPS_FP16.get(name, PEAK_FLOPS[name][0])
    return PEAK_FLOPS[name][dtype is torch.float32]


def mfu(images_per_second: float, flops_per_image: float, devices: int, peak: float | None) -> float | None:
    """Return the model FLOPs utilisation (Chowdhery et al. 2022, arXiv 2204.02311, appendix B) in [0, 1].

    Args:
        images_per_second: Throughput of all devices together.
        flops_per_image: Operations of training on one image, `step_flops`.
        devices: Number of devices.
        peak: FLOP/s of one device, `peak_flops`; None for an unknown device, which returns None.
    """
    return None if peak is None else images_per_second * flops_per_image / (devices * peak)


def _count(module: Module, apply: Callable[[Module], object]) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        apply(on_meta(module))
    return counter.get_total_flops()


def on_meta(module: Module) -> Module:
    """Return a copy on the meta device, which has shapes and takes no memory."""
    tensors: dict[int, torch.Tensor] = {id(b): b.to("meta") for b in module.buffers()}
    tensors |= {id(p): nn.Parameter(p.detach().to("meta"), p.requires_grad) for p in module.parameters()}
    return copy.deepcopy(module, tensors)
