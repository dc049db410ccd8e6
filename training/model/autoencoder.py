"""From pictures to what the U-Net denoises, and back. The interface is that of diffusers:
`.encode(x).latent_dist.sample(generator)` or `.mode()`, `.decode(z).sample`, `.config.scaling_factor`.
"""

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

LOG_VARIANCE_OF_A_POINT = -30.0  # the least that diffusers keeps: a standard deviation of 3e-7


class PatchAutoencoder(ModelMixin, ConfigMixin):  # type: ignore[misc]  # both define config_name
    """Lossless: every `patch` × `patch` square of pixels becomes the channels of one latent pixel.

    With patch=1 the latent is the picture. The posterior is a point, so `sample` and `mode` agree.
    """

    @register_to_config
    def __init__(self, patch: int = 1, channels: int = 3, scaling_factor: float = 1.0) -> None:
        super().__init__()
        self.latent_channels = channels * patch**2
        # diffusers asks a model's parameters for its device and type, hence must find one.
        self.register_parameter("anchor", nn.Parameter(torch.zeros(1), requires_grad=False))

    def encode(self, x_BCHW: Tensor) -> AutoencoderKLOutput:
        """Pictures `[B, C, H, W]`, H and W multiples of the patch, to `[B, C·patch², H/patch, W/patch]`."""
        mean = nn.functional.pixel_unshuffle(x_BCHW, self.config["patch"])
        moments = torch.cat([mean, torch.full_like(mean, LOG_VARIANCE_OF_A_POINT)], dim=1)
        return AutoencoderKLOutput(latent_dist=DiagonalGaussianDistribution(moments, deterministic=True))

    def decode(self, z_BCHW: Tensor) -> DecoderOutput:
        return DecoderOutput(sample=nn.functional.pixel_shuffle(z_BCHW, self.config["patch"]))


Autoencoder = AutoencoderKL | PatchAutoencoder


def stable_diffusion_autoencoder() -> AutoencoderKL:
    """The 8× down, 4-channel autoencoder of Stable Diffusion v1 (83.7 M parameters), newly initialised."""
    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        sample_size=256,
        scaling_factor=0.18215,
    )
