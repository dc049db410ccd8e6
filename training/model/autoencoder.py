"""Autoencoders between images and the latents that the U-Net denoises, with the interface of diffusers.

`.encode(x).latent_dist.sample(generator)` or `.mode()`, `.decode(z).sample`, `.config.scaling_factor`.
"""

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

MIN_LOG_VARIANCE = -30.0  # lower bound of diffusers: a standard deviation of 3e-7


class PatchAutoencoder(ModelMixin, ConfigMixin):  # type: ignore[misc]  # both define config_name
    """Lossless autoencoder: the pixels of a `patch` × `patch` square are the channels of one latent pixel.

    The variance of the posterior is zero, so that `sample` and `mode` agree.

    Args:
        patch: Side of a square in pixels; with 1 the latent is the image.
        channels: Channels of the image.
        scaling_factor: Factor of latents before noise is added.
    """

    @register_to_config
    def __init__(self, patch: int = 1, channels: int = 3, scaling_factor: float = 1.0) -> None:
        super().__init__()
        self.latent_channels = channels * patch**2
        # diffusers reads device and dtype of a model from its parameters, so it needs one.
        self.register_parameter("anchor", nn.Parameter(torch.zeros(1), requires_grad=False))

    def encode(self, x_BCHW: Tensor) -> AutoencoderKLOutput:
        """Return the posterior `[B, C·patch², H/patch, W/patch]` of images `[B, C, H, W]`."""
        mean = nn.functional.pixel_unshuffle(x_BCHW, self.config["patch"])
        moments = torch.cat([mean, torch.full_like(mean, MIN_LOG_VARIANCE)], dim=1)
        return AutoencoderKLOutput(latent_dist=DiagonalGaussianDistribution(moments, deterministic=True))

    def decode(self, z_BCHW: Tensor) -> DecoderOutput:
        """Return images `[B, C, H, W]` of latents `[B, C·patch², H/patch, W/patch]`."""
        return DecoderOutput(sample=nn.functional.pixel_shuffle(z_BCHW, self.config["patch"]))


Autoencoder = AutoencoderKL | PatchAutoencoder


def stable_diffusion_autoencoder() -> AutoencoderKL:
    """Return the autoencoder of Stable Diffusion v1 (8× down, 4 channels, 83.7 M parameters) with random weights."""
    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        sample_size=256,
        scaling_factor=0.18215,
    )
