"""Read a model from a file in the layout of the original (`ldm`), such as 105000.ckpt."""

from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPVisionModelWithProjection

from conf.options import UserError
from training.model.checkpoints import ldm_names as ldm
from training.model.checkpoints.mistaken import refuse_mistaken_names
from training.model.checkpoints.model_parts import Pretrained, fill
from training.model.checkpoints.untrusted_file import Weights, shape_errors, validate_weight
from training.model.conditioning import CCProjection
from training.model.config import PoseVector
from training.model.zero123 import noise_schedule

UNET_INPUT = "input_blocks.0.0.weight"
POSE_NOTE = "pose_vector"  # key of the pose vector in files that this project wrote


# ---- the original's layout


def parts_of_file(weights: Weights, ema: bool) -> Pretrained:
    """Return the parts of a model in the original's layout.

    Args:
        weights: Tensors of the file.
        ema: Whether to read the moving average of the U-Net's weights where the file has both.

    Raises:
        UserError: The tensors belong to another model, or some are missing, of another shape or not finite.
    """
    refuse_mistaken_names(weights)
    weights = ldm.rename_image_encoder(weights)
    tensors, pose_vector = weights.tensors, None
    ema = ema and ldm.ema_name(ldm.UNET + UNET_INPUT) in tensors
    image_encoder = projection = None
    # On meta, where a few names that claim a huge model take no memory.
    with shape_errors(weights), torch.device("meta"):
        unet = UNet2DConditionModel(**ldm.unet_config(weights.part(ldm.UNET)))
        vae = AutoencoderKL(**ldm.autoencoder_config(weights.part(ldm.VAE)))
        if any(name.startswith(ldm.CLIP) for name in tensors):
            config = ldm.image_encoder_config(weights.part(ldm.CLIP))
            image_encoder = CLIPVisionModelWithProjection(config)
        if ldm.PROJECTION + "weight" in tensors:
            out_channel, in_channel = weights.shape(ldm.PROJECTION + "weight", 2)
            if POSE_NOTE in weights.notes:
                pose_vector = PoseVector(weights.notes[POSE_NOTE])
            projection = CCProjection(in_channel, out_channel, pose_vector or PoseVector.zero123)
    parts = [part for part in (unet, vae, image_encoder, projection) if part is not None]
    _refuse_unknown(weights, parts)
    for part in parts:
        _fill(part, weights, ema and part is unet)
    return Pretrained(unet, vae, image_encoder, projection, noise_schedule(), ema, pose_vector)


def _refuse_unknown(weights: Weights, parts: list[nn.Module]) -> None:
    known = {name for part in parts for name, _ in ldm.ldm_names(part).values()}
    known |= {ldm.ema_name(name) for name in known if name.startswith(ldm.UNET)}
    unknown = [name for name in weights.tensors if name not in known and not ldm.SKIPPED.fullmatch(name)]
    if unknown:
        raise UserError(
            f"{weights.path} is no Zero-1-to-3 and no image-conditioned Stable Diffusion v1: its tensor {unknown[0]} "
            f"is unknown here, and {len(unknown) - 1} others"
        )


def _fill(part: Any, weights: Weights, ema: bool) -> None:
    state, empty = {}, part.state_dict()
    for key, (name, third) in ldm.ldm_names(part).items():
        name = ldm.ema_name(name) if ema else name
        tensor = weights[name] if third is None else weights[name].chunk(3)[third]
        state[key] = validate_weight(
            _match_layout(tensor, empty[key], name), empty[key], f"{weights.path}: its tensor {name}"
        )
    fill(part, state, weights.path)


def _match_layout(tensor: Tensor, like: Tensor, name: str) -> Tensor:
    """Return a tensor in diffusers' layout: CLIP's projection transposed, 1 × 1 convolutions of the VAE as matrices."""
    if name.endswith("visual.proj"):
        return tensor.T
    if tensor.ndim == 4 and like.ndim == 2 and tensor.shape[2:] == (1, 1):
        return tensor[..., 0, 0]
    return tensor
