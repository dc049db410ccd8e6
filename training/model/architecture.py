"""Build a model from the settings of its architecture."""

import logging

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from conf.options import FieldError
from training.model.ablation import ablate
from training.model.autoencoder import Autoencoder, PatchAutoencoder, stable_diffusion_autoencoder
from training.model.checkpoints.checkpoint import check_fit
from training.model.checkpoints.hub import local_path
from training.model.checkpoints.model_parts import load_image_encoder
from training.model.checkpoints.pretrained import Frozen, Pretrained, extend_input, may_be_stable, read, read_frozen
from training.model.conditioning import POSE_DIM, CCProjection
from training.model.config import Architecture, PoseVector
from training.model.context import modulation
from training.model.zero123 import BETA_START, Zero123, noise_schedule

log = logging.getLogger(__name__)


def build(architecture: Architecture, seed: int = 0) -> Zero123:
    """Return a new model with random weights, or with those of a pretrained checkpoint.

    Input channels that a pretrained U-Net lacks get zero weights.

    Args:
        architecture: Settings.
        seed: Seed of random weights.

    Raises:
        FieldError: Settings are invalid, or the pretrained checkpoint lacks a part.
        UserError: Parts do not fit each other, or a source cannot be read.
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
            _load_projection(projection, start.cc_projection, architecture)
    clip = architecture.scaling_factor if architecture.patch else None
    schedule = noise_schedule(architecture.prediction, clip, architecture.beta_end)
    if start and start.scheduler:
        _warn_of_another_schedule(architecture, start.scheduler, schedule)
    model = Zero123(unet, vae, image_encoder, projection, schedule)
    model.image_encoder.requires_grad_(architecture.train_image_encoder)
    if architecture.pretrained:
        check_fit(model, architecture.pretrained)
    ablate(model, architecture.without)
    return model


def build_encoders(architecture: Architecture, seed: int = 0) -> tuple[Autoencoder, CLIPVisionModelWithProjection]:
    """Return the autoencoder and the image encoder of `build`, equal bit for bit, without building the U-Net."""
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
        raise FieldError(architecture, "pretrained", "the checkpoint has no vae; choose another")
    return start.vae


def _image_encoder(architecture: Architecture, start: Pretrained | Frozen | None) -> CLIPVisionModelWithProjection:
    if architecture.image_encoder:
        return load_image_encoder(local_path(architecture.image_encoder, parts=()), untrusted=True)
    if start is not None:
        if start.image_encoder is None:
            raise FieldError(
                architecture, "pretrained", "the checkpoint has no image_encoder; set image_encoder as well"
            )
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
        raise FieldError(
            architecture,
            "pretrained",
            "may be Stable-Zero123, whose pose vector differs; convert it with python -m training.convert and "
            "pose_vector=stable_zero123 (or zero123), and use the result",
        )
    return start.cc_projection.pose_vector


def _warn_of_another_schedule(architecture: Architecture, before: DDIMScheduler, now: DDIMScheduler) -> None:
    """Log settings of the noise schedule that differ from those that the pretrained weights were trained with."""
    for option, name in (("prediction", "prediction_type"), ("beta_end", "beta_end")):
        if before.config[name] != now.config[name]:
            log.warning(
                "model.pretrained=%s was trained with model.%s=%s, and this run has %s",
                architecture.pretrained,
                option,
                before.config[name],
                now.config[name],
            )


def _load_projection(projection: CCProjection, pretrained: CCProjection, architecture: Architecture) -> None:
    expected, weights = projection.state_dict(), pretrained.state_dict()
    if any(expected[name].shape != weights[name].shape for name in expected):
        reason = "the cc_projection of the checkpoint does not fit image encoder and unet; choose another"
        raise FieldError(architecture, "pretrained", reason)
    projection.load_state_dict(weights)


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
        attention_head_dim=shape.heads,  # the number of heads, under the earlier name in diffusers
        norm_num_groups=shape.groups,
        **modulation(context) if shape.modulation else {},
    )


def _validate(architecture: Architecture) -> None:
    """Raise FieldError for settings that no model can be built from."""
    unet, encoder = architecture.unet, architecture.encoder
    for settings in (architecture, unet, encoder):
        for name, value in vars(settings).items():
            numbers = value if isinstance(value, list) else [value]
            if any(type(number) is int and number < 1 for number in numbers):
                raise FieldError(settings, name, "must be at least 1")
    if encoder.width % encoder.heads:
        raise FieldError(encoder, "width", f"must be a multiple of heads={encoder.heads}")
    if encoder.patch_size > encoder.image_size:
        raise FieldError(encoder, "patch_size", f"must be at most image_size={encoder.image_size}")
    if not 0 < architecture.scaling_factor < float("inf"):
        raise FieldError(architecture, "scaling_factor", "must be above 0")
    if not unet.channels or len(unet.channels) != len(unet.attention):
        raise FieldError(unet, "channels", f"must have one entry per level, as attention={list(unet.attention)}")
    if any(width % unet.groups or width % unet.heads for width in unet.channels):
        raise FieldError(unet, "channels", f"must be multiples of groups={unet.groups} and heads={unet.heads}")
    if not BETA_START < architecture.beta_end < 1:
        raise FieldError(architecture, "beta_end", f"must be above {BETA_START} and below 1")
    step = (architecture.patch or 8) * 2 ** (len(unet.channels) - 1)
    if architecture.resolution % step:
        raise FieldError(architecture, "resolution", f"must be a multiple of {step} for this U-Net")
