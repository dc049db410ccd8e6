"""What a model costs: floating point operations, counted from the modules themselves, and what a GPU could do.

A multiply and an add are two operations. Convolutions, linear layers and attention count; norms, activations and
additions do not. A training step is taken for three forward passes, the backward pass being two, as in
Kaplan et al. 2020 (arXiv 2001.08361); activations that are computed twice, for checkpointing, count once.
"""

import copy
import re

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from training.model.autoencoder import Autoencoder
from training.model.zero123 import Zero123

BACKWARD = 2  # forward passes

# FLOP/s of dense matrices in (bfloat16, single precision), the latter as TF32 where a GPU has it: training allows it.
# From NVIDIA's data sheets, halved where they give the figure with sparsity; a longer name comes before its beginning.
PEAKS = {
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
LESSER = {"MIG", "Laptop", "D"}  # a slice of a GPU and a weaker one, which are called after the whole
HALF_PEAKS = {"V100-SXM2": 125e12, "V100-PCIE": 112e12, "T4": 65e12}  # of float16 where there is no bfloat16


def unet_flops(unet: UNet2DConditionModel) -> int:
    """Operations of one forward pass for one image: 176.3e9 for Stable Diffusion v1 at 32² latents with eight input
    channels and one context token, 169.9e9 where that token is attended to by the shortcut of
    `training.model.attention`.
    """
    size, channels = unet.config["sample_size"], unet.config["in_channels"]
    latent = torch.empty(1, channels, size, size, device="meta")
    context = torch.empty(1, 1, unet.config["cross_attention_dim"], device="meta")
    return _count(unet, latent, torch.zeros(1, device="meta"), context)


def encoding_flops(model: Zero123) -> int:
    """Operations of encoding one pair of pictures: both by the autoencoder, the condition by the image encoder."""
    picture = torch.empty(1, 3, model.resolution, model.resolution, device="meta")
    pixels = model.image_encoder.config.image_size
    vae = _count(_Encoder(model.vae), picture)
    return 2 * vae + _count(model.image_encoder, torch.empty(1, 3, pixels, pixels, device="meta"))


def step_flops(unet: UNet2DConditionModel) -> int:
    """Operations of training on one image: 529e9 for Stable Diffusion v1 at 32²."""
    return (1 + BACKWARD) * unet_flops(unet)


def peak_flops(device_name: str, dtype: torch.dtype) -> float | None:
    """FLOP/s that a GPU reaches at best, by the name that torch gives it; None where nobody told us."""
    name = next((name for name in PEAKS if re.search(rf"\b{name}\b", device_name)), None)
    if name is None or LESSER & set(device_name.split()):
        return None
    if dtype is torch.float16:
        return HALF_PEAKS.get(name, PEAKS[name][0])
    return PEAKS[name][dtype is torch.float32]


def mfu(images_per_second: float, flops_per_image: float, devices: int, peak: float | None) -> float | None:
    """Model FLOPs utilisation (Chowdhery et al. 2022, arXiv 2204.02311, appendix B): a share in [0, 1], or None where
    the peak of a device is unknown. `images_per_second` of all devices together."""
    return None if peak is None else images_per_second * flops_per_image / (devices * peak)


class _Encoder(nn.Module):
    def __init__(self, vae: Autoencoder) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        return self.vae.encode(picture).latent_dist.mode()


def _count(module: nn.Module, *inputs: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        on_meta(module)(*inputs)
    return counter.get_total_flops()


def on_meta(module: nn.Module) -> nn.Module:
    """A copy that has shapes and no numbers, hence takes no memory."""
    tensors: dict[int, torch.Tensor] = {id(b): b.to("meta") for b in module.buffers()}
    tensors |= {id(p): nn.Parameter(p.detach().to("meta"), p.requires_grad) for p in module.parameters()}
    return copy.deepcopy(module, tensors)
