"""The context token in the U-Net: by cross-attention as in the paper, and optionally in every residual block."""

from typing import Any

from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

# Settings of diffusers' U-Net by which an embedding of the context token is added to that of the timestep, and their
# sum scales and shifts the features of each residual block: FiLM (Perez et al. 2018, arXiv 1709.07871).
MODULATION = {"class_embed_type": "projection", "resnet_time_scale_shift": "scale_shift"}


def modulation(context: int) -> dict[str, Any]:
    """Return the settings of a U-Net that is modulated by a context token of length `context`."""
    return {**MODULATION, "projection_class_embeddings_input_dim": context}


def apply_unet(unet: UNet2DConditionModel, input: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
    """Return the prediction `[B, C, h, w]` of the U-Net, with the context token wherever it takes one.

    Args:
        unet: The U-Net.
        input: Noisy and condition latents `[B, 2C, h, w]`.
        timesteps: `[B]`.
        context: Context token `[B, 1, D]`.
    """
    modulated = unet.config["class_embed_type"] == MODULATION["class_embed_type"]
    labels = {"class_labels": context[:, 0]} if modulated else {}
    return unet(input, timesteps, encoder_hidden_states=context, **labels).sample
