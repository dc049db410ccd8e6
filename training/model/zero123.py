"""The view-conditioned denoiser of Zero-1-to-3 and its training objective (section 3.2, equation 2)."""

from typing import TypedDict

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor, nn
from transformers import CLIPVisionModelWithProjection

from training.model.autoencoder import Autoencoder
from training.model.conditioning import CCProjection, drop_out, embed

CONDITIONING_DROP = 0.05


class Pairs(TypedDict):
    """A batch of view pairs: pictures `[B, 3, R, R]` in [-1, 1], relative poses `[B, 4]`."""

    target: Tensor
    condition: Tensor
    pose: Tensor


class Zero123(nn.Module):
    """U-Net and `cc_projection` learn; autoencoder and image encoder stay frozen.

    The U-Net sees [noisy target latent, condition latent] and one context token. The scheduler is there for
    its configuration: the noise schedule it was trained with and how samplers step through it.
    """

    alphas_cumprod: Tensor

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: Autoencoder,
        image_encoder: CLIPVisionModelWithProjection,
        cc_projection: CCProjection,
        scheduler: DDIMScheduler,
    ) -> None:
        super().__init__()
        self.unet = unet
        self.vae = vae.eval().requires_grad_(False)
        self.image_encoder = image_encoder.eval().requires_grad_(False)
        self.cc_projection = cc_projection
        self.scheduler = scheduler
        self.register_buffer("alphas_cumprod", scheduler.alphas_cumprod.float(), persistent=False)

    def train(self, mode: bool = True) -> "Zero123":
        super().train(mode)
        self.vae.eval()
        self.image_encoder.eval()
        return self

    @property
    def device(self) -> torch.device:
        return self.unet.device

    @property
    def latent_channels(self) -> int:
        return self.unet.config["out_channels"]

    @property
    def latent_size(self) -> int:
        return self.unet.config["sample_size"]

    @property
    def resolution(self) -> int:
        """Side of the pictures in pixels."""
        return self.latent_size * _downscale(self.vae)

    def embed(self, images_BCHW: Tensor) -> Tensor:
        """Image embedding `[B, D]` of pictures in [-1, 1]."""
        return embed(self.image_encoder, images_BCHW)

    def context(self, embedding_BD: Tensor, pose_B4: Tensor) -> Tensor:
        """The U-Net's one context token `[B, 1, D]`."""
        return self.cc_projection(torch.cat([embedding_BD, pose_B4.to(embedding_BD)], dim=1))[:, None]

    @torch.no_grad()
    def condition_latent(self, images_BCHW: Tensor) -> Tensor:
        """Posterior mode `[B, C, h, w]`, *not* scaled: so the released checkpoints were trained."""
        return self.vae.encode(images_BCHW).latent_dist.mode()

    @torch.no_grad()
    def target_latent(self, images_BCHW: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Posterior sample `[B, C, h, w]` times the scaling factor."""
        return self.vae.encode(images_BCHW).latent_dist.sample(generator) * self.vae.config["scaling_factor"]

    @torch.no_grad()
    def decode(self, latent_BCHW: Tensor) -> Tensor:
        """Scaled latents to pictures `[B, 3, R, R]` in [-1, 1]."""
        return self.vae.decode(latent_BCHW / self.vae.config["scaling_factor"]).sample.clamp(-1, 1)

    def predict_noise(self, noisy: Tensor, timesteps: Tensor, context: Tensor, condition: Tensor) -> Tensor:
        """ε `[B, C, h, w]` in the noisy latent, at `timesteps` `[B]`."""
        joined = torch.cat([noisy, condition], dim=1)
        return self.unet(joined, timesteps, encoder_hidden_states=context).sample

    def loss(self, batch: Pairs, generator: torch.Generator | None = None, drop: float = CONDITIONING_DROP) -> Tensor:
        """Mean squared error of the predicted noise, a scalar, for a batch of view pairs."""
        return self.latent_loss(
            self.target_latent(batch["target"], generator),
            self.condition_latent(batch["condition"]),
            self.embed(batch["condition"]),
            batch["pose"],
            generator,
            drop,
        )

    def latent_loss(
        self,
        target_BCHW: Tensor,
        condition_BCHW: Tensor,
        embedding_BD: Tensor,
        pose_B4: Tensor,
        generator: torch.Generator | None = None,
        drop: float = CONDITIONING_DROP,
    ) -> Tensor:
        """`loss` for pairs that are encoded already. `generator` lives on the device of the latents."""
        batch, device = len(target_BCHW), target_BCHW.device
        u_B = torch.rand(batch, generator=generator, device=device)
        timesteps_B = torch.randint(len(self.alphas_cumprod), (batch,), generator=generator, device=device)
        noise = torch.randn(target_BCHW.shape, generator=generator, device=device, dtype=target_BCHW.dtype)
        noisy = add_noise(target_BCHW, noise, self.alphas_cumprod[timesteps_B])
        embedding_BD, condition_BCHW = drop_out(u_B, embedding_BD, condition_BCHW, drop)
        context = self.context(embedding_BD, pose_B4)
        predicted = self.predict_noise(noisy, timesteps_B, context, condition_BCHW)
        return nn.functional.mse_loss(predicted.float(), noise.float())


def add_noise(clean_BCHW: Tensor, noise_BCHW: Tensor, alpha_B: Tensor) -> Tensor:
    """√ᾱ·x₀ + √(1-ᾱ)·ε (DDPM, equation 4), `alpha_B` being ᾱ of each sample's timestep."""
    alpha = alpha_B[:, None, None, None]
    return (alpha.sqrt() * clean_BCHW + (1 - alpha).sqrt() * noise_BCHW).to(clean_BCHW.dtype)


def noise_schedule(clip: float | None = None) -> DDIMScheduler:
    """T = 1000, β from 0.00085 to 0.012 linear in √β, ε-prediction; DDIM steps offset by one.

    `clip` bounds what a sampler takes the clean latent for at each step; pixels know such a bound.
    """
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="epsilon",
        timestep_spacing="leading",
        steps_offset=1,
        set_alpha_to_one=False,
        clip_sample=clip is not None,
        clip_sample_range=clip or 1.0,
    )


def _downscale(vae: Autoencoder) -> int:
    return vae.config["patch"] if "patch" in vae.config else 2 ** (len(vae.config["block_out_channels"]) - 1)
