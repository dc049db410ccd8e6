"""The shapes of a model and how to build one; Stable Diffusion v1 and the tiny model differ in numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from conf.options import UserError, option
from training.model.autoencoder import Autoencoder, PatchAutoencoder, stable_diffusion_autoencoder
from training.model.checkpoint import check_fit, load_image_encoder
from training.model.conditioning import POSE_DIM, CCProjection, PoseVector
from training.model.hub import local_path, pinned
from training.model.pretrained import Frozen, Pretrained, extend_input, may_be_stable, read, read_frozen
from training.model.zero123 import Prediction, Zero123, noise_schedule


@dataclass(frozen=True)
class UNetShape:
    """The denoiser; the defaults are those of Stable Diffusion v1."""

    channels: list[int] = option([320, 640, 1280, 1280], "width of each level, finest first")
    attention: list[bool] = option([True, True, True, False], "whether a level attends to itself and the context")
    layers: int = option(2, "residual blocks per level")
    heads: int = option(8, "attention heads")
    groups: int = option(32, "groups of the group normalisation; must divide every width")


@dataclass(frozen=True)
class ImageEncoderShape:
    """A CLIP vision tower; the defaults are those of ViT-L/14."""

    image_size: int = option(224, "side of its input in pixels")
    patch_size: int = option(14, "side of a patch in pixels")
    width: int = option(1024, "width of its layers")
    layers: int = option(24, "its layers")
    heads: int = option(16, "its attention heads")
    projection: int = option(768, "length of the embedding, which is the U-Net's context")
    init_scale: float = option(1.0, "scale of the random weights; a larger one tells pictures better apart")


@dataclass(frozen=True)
class Architecture:
    """A model to be trained."""

    resolution: int = option(256, "side of the pictures in pixels")
    patch: int | None = option(None, "denoise patches of so many pixels a side; null: Stable Diffusion's autoencoder")
    scaling_factor: float = option(1.0, "what patches are multiplied by before noise is added")
    prediction: Prediction = option(Prediction.epsilon, "what the denoiser predicts: epsilon, v_prediction, sample")
    unet: UNetShape = option(UNetShape(), "the denoiser")
    encoder: ImageEncoderShape = option(ImageEncoderShape(), "the image encoder where no folder is named")
    image_encoder: str | None = option(None, "folder, or org/name on the Hugging Face hub, of a CLIP vision model")
    pretrained: str | None = option(None, "checkpoint to start from: whatever training.convert reads")

    def pinned(self, recorded: Mapping[str, Any] | None = None) -> "Architecture":
        """Return the same with the commits of sources on the Hugging Face hub, those `recorded` of a run first."""
        before = recorded or {}
        return replace(
            self,
            pretrained=self.pretrained and pinned(self.pretrained, before.get("pretrained")),
            image_encoder=self.image_encoder and pinned(self.image_encoder, before.get("image_encoder")),
        )


def build(architecture: Architecture, seed: int = 0) -> Zero123:
    """A new model: random, or from pretrained parts whose U-Net gets its new input channels as zeros.

    Raises:
        UserError: shapes that do not fit each other, or a pretrained source without the parts.
    """
    _validate(architecture)
    start = read(architecture.pretrained) if architecture.pretrained else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae, image_encoder = _autoencoder(architecture, start), _image_encoder(architecture, start)
        embedding = image_encoder.config.projection_dim
        unet = _unet(architecture, start, vae, context=embedding)
        kind = _pose_vector(architecture, start)
        projection = CCProjection(embedding + POSE_DIM, unet.config["cross_attention_dim"], kind)
        if start and start.cc_projection:
            _load_projection(projection, start.cc_projection, architecture.pretrained)
    clip = architecture.scaling_factor if architecture.patch else None
    model = Zero123(unet, vae, image_encoder, projection, noise_schedule(architecture.prediction, clip))
    if architecture.pretrained:
        check_fit(model, architecture.pretrained)
    return model


def build_encoders(architecture: Architecture, seed: int = 0) -> tuple[Autoencoder, CLIPVisionModelWithProjection]:
    """The autoencoder and the image encoder of `build`, bit for bit, without the rest."""
    _validate(architecture)
    start = read_frozen(architecture.pretrained) if architecture.pretrained else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae, image_encoder = _autoencoder(architecture, start), _image_encoder(architecture, start)
    vae.eval().requires_grad_(False)
    image_encoder.eval().requires_grad_(False)
    return vae, image_encoder


def _autoencoder(architecture: Architecture, start: Pretrained | Frozen | None) -> Autoencoder:
    if architecture.patch is not None:
        return PatchAutoencoder(architecture.patch, scaling_factor=architecture.scaling_factor)
    if start is None:
        return stable_diffusion_autoencoder()
    if start.vae is None:
        raise UserError(f"{architecture.pretrained} has no vae")
    return start.vae


def _image_encoder(architecture: Architecture, start: Pretrained | Frozen | None) -> CLIPVisionModelWithProjection:
    if architecture.image_encoder:
        return load_image_encoder(local_path(architecture.image_encoder, parts=()), untrusted=True)
    if start is not None:
        if start.image_encoder is None:
            raise UserError(f"{architecture.pretrained} has no image_encoder; add model.image_encoder=…")
        return start.image_encoder
    shape = architecture.encoder
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=shape.width,
            intermediate_size=4 * shape.width,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            image_size=shape.image_size,
            patch_size=shape.patch_size,
            projection_dim=shape.projection,
            initializer_factor=shape.init_scale,
            hidden_act="quick_gelu",
        )
    )


def _pose_vector(architecture: Architecture, start: Pretrained | None) -> PoseVector:
    """Return the definition of the pose vector that training continues with: that of the pretrained checkpoint."""
    if start is None or start.cc_projection is None:
        return PoseVector.zero123
    if start.pose_vector is None and may_be_stable(str(architecture.pretrained)):
        raise UserError(
            f"model.pretrained={architecture.pretrained} may be Stable-Zero123, whose pose vector differs; convert it "
            "with python -m training.convert, where pose_vector=stable_zero123 or zero123 says which it is, and name "
            "the result"
        )
    return start.cc_projection.pose_vector


def _load_projection(projection: CCProjection, pretrained: CCProjection, source: str | None) -> None:
    ours, theirs = projection.state_dict(), pretrained.state_dict()
    if any(ours[name].shape != theirs[name].shape for name in ours):
        raise UserError(f"model.pretrained={source}: its cc_projection fits neither its image_encoder nor its unet")
    projection.load_state_dict(theirs)


def _unet(architecture: Architecture, start: Pretrained | None, vae: Autoencoder, context: int) -> UNet2DConditionModel:
    if isinstance(vae, PatchAutoencoder):
        latent, size = vae.latent_channels, architecture.resolution // vae.config["patch"]
    else:
        latent, size = vae.config["latent_channels"], architecture.resolution // 8
    if start is not None:
        unet = start.unet if start.unet.config["in_channels"] != latent else extend_input(start.unet, 2 * latent)
        unet.register_to_config(sample_size=size)
        return unet
    shape = architecture.unet
    return UNet2DConditionModel(
        sample_size=size,
        in_channels=2 * latent,
        out_channels=latent,
        block_out_channels=tuple(shape.channels),
        layers_per_block=shape.layers,
        down_block_types=tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in shape.attention),
        up_block_types=tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(shape.attention)),
        cross_attention_dim=context,
        attention_head_dim=shape.heads,  # diffusers' old name for the number of heads
        norm_num_groups=shape.groups,
    )


def _validate(architecture: Architecture) -> None:
    unet, encoder = architecture.unet, architecture.encoder
    patch = 1 if architecture.patch is None else architecture.patch
    counts = {"resolution": architecture.resolution, "patch": patch}
    for name, part in (("unet", unet), ("encoder", encoder)):
        sizes = {key: min(value, default=1) if isinstance(value, list) else value for key, value in vars(part).items()}
        counts |= {f"{name}.{key}": size for key, size in sizes.items() if type(size) is int}
    if small := [name for name, count in counts.items() if count < 1]:
        raise UserError(f"model.{small[0]} must be at least 1")
    if encoder.width % encoder.heads:
        raise UserError(f"model.encoder.width={encoder.width} must be a multiple of encoder.heads={encoder.heads}")
    if encoder.patch_size > encoder.image_size:
        raise UserError(f"model.encoder.patch_size must be at most encoder.image_size={encoder.image_size}")
    if not 0 < architecture.scaling_factor < float("inf"):
        raise UserError(f"model.scaling_factor={architecture.scaling_factor} must be above 0")
    if not unet.channels or len(unet.channels) != len(unet.attention):
        raise UserError("model.unet.channels and model.unet.attention must be equally long, one entry per level")
    if any(width % unet.groups or width % unet.heads for width in unet.channels):
        raise UserError(
            f"model.unet.channels {list(unet.channels)} must be multiples of unet.groups={unet.groups} "
            f"and unet.heads={unet.heads}"
        )
    step = (architecture.patch or 8) * 2 ** (len(unet.channels) - 1)
    if architecture.resolution % step:
        raise UserError(f"model.resolution={architecture.resolution} must be a multiple of {step} for this U-Net")
