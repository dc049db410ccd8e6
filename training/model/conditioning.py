"""Conditioning of the U-Net: image embedding and relative pose of the condition view (section 3.2 of the paper)."""

from typing import cast

import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from transformers import CLIPVisionModelWithProjection

from training.model.config import PoseVector

POSE_DIM = 4  # [Δθ, sin Δφ, cos Δφ, Δr], rendering.cameras.relative_pose
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def convert_pose(kind: PoseVector, pose_B4: Tensor, condition_polar_B: Tensor) -> Tensor:
    """Return the pose vectors `[B, 4]` that a model of this kind is conditioned on.

    Args:
        kind: Definition of the fourth number.
        pose_B4: [Δθ, sin Δφ, cos Δφ, Δr], `rendering.cameras.relative_pose`.
        condition_polar_B: Polar angles θ of the condition cameras, radians from +z: π/2 minus the elevation.
    """
    if kind is PoseVector.zero123:
        return pose_B4
    return torch.cat([pose_B4[:, :3], condition_polar_B[:, None].to(pose_B4)], dim=1)


class CCProjection(ModelMixin, ConfigMixin):  # type: ignore[misc]  # both define config_name
    """Linear map from embedding ++ pose `[..., in_channel]` to the context of the U-Net `[..., out_channel]`.

    Initialised to the identity on the embedding and zero on the pose. Names and layout are those of the community
    pipeline Zero1to3StableDiffusionPipeline.

    Args:
        in_channel: Length of embedding and pose vector together.
        out_channel: Length of the context token.
        pose_vector: Definition of the pose vector, a `PoseVector`.
    """

    def __init__(self, in_channel: int = 768 + POSE_DIM, out_channel: int = 768, pose_vector: str = "zero123") -> None:
        super().__init__()
        # The community's class knows one pose vector only and rejects other settings, so a default is not written.
        extra = {} if pose_vector == PoseVector.zero123 else {"pose_vector": str(pose_vector)}
        self.register_to_config(in_channel=in_channel, out_channel=out_channel, **extra)
        self.pose_vector = PoseVector(pose_vector)
        self.projection = nn.Linear(in_channel, out_channel)
        nn.init.eye_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the context `[..., out_channel]` for embedding ++ pose `[..., in_channel]`."""
        return self.projection(x)


def clip_input(images_BCHW: Tensor, resolution: int) -> Tensor:
    """Return the input of CLIP `[B, 3, resolution, resolution]` for images `[B, 3, H, W]` in [-1, 1].

    Resizes bicubically with aligned corners and without antialiasing, as in training of the released checkpoints
    (`FrozenCLIPImageEmbedder.preprocess` of the original).
    """
    size = (resolution, resolution)
    resized = nn.functional.interpolate(images_BCHW, size, mode="bicubic", align_corners=True)
    mean, std = (resized.new_tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
    return ((resized + 1) / 2 - mean) / std


def embed(encoder: CLIPVisionModelWithProjection, images_BCHW: Tensor) -> Tensor:
    """Return the projected CLIP embeddings `[B, D]`, not normalised, of images `[B, 3, H, W]` in [-1, 1]."""
    pixels = clip_input(images_BCHW, cast(int, encoder.config.image_size))
    return encoder(pixel_values=pixels.to(encoder.dtype)).image_embeds.to(images_BCHW.dtype)


def drop_out(u_B: Tensor, embedding_BD: Tensor, condition_BCHW: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """Drop conditioning at random, for classifier-free guidance.

    Zeroes the embedding where u < 2p and the condition latent where p ≤ u < 3p: with u uniform in [0, 1), a share p of
    samples loses the embedding alone, p both, and p the latent alone.

    Args:
        u_B: One number per sample, uniform in [0, 1).
        embedding_BD: Image embeddings.
        condition_BCHW: Condition latents.
        p: Probability.

    Returns:
        Embeddings `[B, D]` and condition latents `[B, C, h, w]`.
    """
    no_embedding = u_B < 2 * p
    no_condition = (p <= u_B) & (u_B < 3 * p)
    return (
        embedding_BD.masked_fill(no_embedding[:, None], 0),
        condition_BCHW.masked_fill(no_condition[:, None, None, None], 0),
    )
