"""The view-conditioned denoiser of Zero-1-to-3 and its training objective (section 3.2, equation 2)."""

from typing import NotRequired, TypedDict, final

import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor, nn
from transformers import CLIPVisionModelWithProjection

from training.model.attention import attend_to_one_token
from training.model.autoencoder import Autoencoder
from training.model.conditioning import CCProjection, convert_pose, drop_out, embed
from training.model.config import UNIFORM, PoseVector, Prediction, TimestepDensity
from training.model.context import apply_unet
from training.model.picture import as_floats
from training.model.timesteps import sample_timesteps

CONDITIONING_DROP = 0.05
BETA_START = 0.00085  # β of the first timestep, as in Stable Diffusion
MAX_LOSS_WEIGHT = 5.0  # of one sample, in the loss of a U-Net that predicts the clean latent


@final
class Pairs(TypedDict):
    """Batch of view pairs: images `[B, 3, R, R]`, bytes or floats in [-1, 1], and relative poses `[B, 4]`."""

    target: Tensor
    condition: Tensor
    pose: Tensor
    condition_polar: NotRequired[Tensor]  # [B], radians from +z; needed by the pose vector of Stable-Zero123


@final
class EncodedPairs(TypedDict):
    """Batch of encoded view pairs.

    Moments `[B, 2C, h, w]` of the autoencoder's posteriors, image embeddings `[B, D]` of the conditions, and poses.
    """

    target: Tensor
    condition: Tensor
    embedding: Tensor
    pose: Tensor
    condition_polar: NotRequired[Tensor]


Batch = Pairs | EncodedPairs


class Zero123(nn.Module):
    """View-conditioned latent diffusion model.

        condition image ── image_encoder ── [B, D] ++ pose [B, 4] ── cc_projection ──▶ context token [B, 1, D]
        condition image ── vae, mode ──▶ condition latent ┐                                 │
        target image ──── vae, sample × scaling factor + noise ──▶ noisy latent ── concat ── U-Net ──▶ prediction

    U-Net and `cc_projection` are trained; autoencoder and image encoder are frozen, unless a new model is built with
    `train_image_encoder`. With one context token, queries and keys of the cross-attention have no effect and are not
    trained (`training.model.attention`).

    Args:
        unet: Denoiser of 2C input channels, [noisy target latent, condition latent].
        vae: Autoencoder.
        image_encoder: CLIP vision model with projection.
        cc_projection: Linear map from embedding ++ pose to the context token.
        scheduler: Noise schedule of training and settings of samplers.
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
        self.unet = attend_to_one_token(unet)
        self.vae = vae.eval().requires_grad_(False)
        self.image_encoder = image_encoder.eval().requires_grad_(False)
        self.cc_projection = cc_projection
        self.scheduler = scheduler
        self.prediction = Prediction(scheduler.config["prediction_type"])
        self.register_buffer("alphas_cumprod", scheduler.alphas_cumprod.float(), persistent=False)

    def train(self, mode: bool = True) -> "Zero123":
        """Set the training mode of U-Net and `cc_projection`; the encoders stay in evaluation mode."""
        super().train(mode)
        self.vae.eval()
        self.image_encoder.eval()
        return self

    @property
    def device(self) -> torch.device:
        """Device of the U-Net."""
        return self.unet.device

    @property
    def latent_channels(self) -> int:
        """Channels C of a latent."""
        return self.unet.config["out_channels"]

    @property
    def latent_size(self) -> int:
        """Side h = w of a latent."""
        return self.unet.config["sample_size"]

    @property
    def resolution(self) -> int:
        """Side R of the images in pixels."""
        return self.latent_size * _downscale(self.vae)

    def embed(self, images_BCHW: Tensor) -> Tensor:
        """Return image embeddings `[B, D]` of images `[B, 3, R, R]` in [-1, 1]."""
        return embed(self.image_encoder, images_BCHW)

    def context(self, embedding_BD: Tensor, pose_B4: Tensor) -> Tensor:
        """Return the context token of the U-Net `[B, 1, D]`."""
        return self.cc_projection(torch.cat([embedding_BD, pose_B4.to(embedding_BD)], dim=1))[:, None]

    @torch.no_grad()
    def condition_latent(self, images_BCHW: Tensor) -> Tensor:
        """Return the posterior mode `[B, C, h, w]`, *not* scaled, as in training of the released checkpoints."""
        return self.vae.encode(images_BCHW.to(self.vae.dtype)).latent_dist.mode().to(images_BCHW.dtype)

    @torch.no_grad()
    def target_latent(self, images_BCHW: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return a posterior sample `[B, C, h, w]` times the scaling factor."""
        return self.vae.encode(images_BCHW).latent_dist.sample(generator) * self.vae.config["scaling_factor"]

    @torch.no_grad()
    def decode(self, latent_BCHW: Tensor) -> Tensor:
        """Return images `[B, 3, R, R]` in [-1, 1] of scaled latents `[B, C, h, w]`."""
        latent = latent_BCHW / self.vae.config["scaling_factor"]
        return self.vae.decode(latent.to(self.vae.dtype)).sample.to(latent.dtype).clamp(-1, 1)

    def predict_noise(self, noisy: Tensor, timesteps: Tensor, context: Tensor, condition: Tensor) -> Tensor:
        """Return ε `[B, C, h, w]` of noisy latents at `timesteps` `[B]`, for every prediction type of the U-Net."""
        output = self._denoise(noisy, timesteps, context, condition).to(noisy.dtype)
        signal, sigma = self._levels(timesteps)
        match self.prediction:
            case Prediction.epsilon:
                return output
            case Prediction.v_prediction:
                return signal * output + sigma * noisy
            case Prediction.sample:
                return (noisy - signal * output) / sigma

    def losses(
        self,
        batch: Batch,
        generator: torch.Generator | None = None,
        drop: float = CONDITIONING_DROP,
        timesteps: TimestepDensity = UNIFORM,
    ) -> tuple[Tensor, Tensor]:
        """Return the mean squared error of the prediction for each pair `[B]`, and its timestep `[B]`.

        Their mean is equation 2 of the paper, for a prediction of the noise.

        Args:
            batch: View pairs, as images or encoded.
            generator: Source of timesteps and noise, on the device of the model.
            drop: Probability p of `training.model.conditioning.drop_out`.
            timesteps: Density of the timesteps.
        """
        if "embedding" in batch:
            target = posterior(batch["target"]).sample(generator) * self.vae.config["scaling_factor"]
        else:
            target = self.target_latent(as_floats(batch["target"]), generator)
        return self.latent_losses(target, *self.encode_condition(batch), self.pose(batch), generator, drop, timesteps)

    def encode_condition(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return latents `[B, C, h, w]` and image embeddings `[B, D]` of the condition images of a batch."""
        if "embedding" in batch:
            return posterior(batch["condition"]).mode(), batch["embedding"].float()
        pictures = as_floats(batch["condition"])
        return self.condition_latent(pictures), self.embed(pictures)

    def pose(self, batch: Batch) -> Tensor:
        """Return the pose vectors `[B, 4]` of a batch, as this model defines them."""
        kind = self.cc_projection.pose_vector
        return (
            batch["pose"] if kind is PoseVector.zero123 else convert_pose(kind, batch["pose"], batch["condition_polar"])
        )

    def pictures(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return conditions and targets as images `[B, 3, R, R]` in [-1, 1]; encoded ones are decoded."""
        condition, target = batch["condition"], batch["target"]
        if "embedding" not in batch:
            return as_floats(condition), as_floats(target)
        scale = self.vae.config["scaling_factor"]
        return self.decode(posterior(condition).mode() * scale), self.decode(posterior(target).mode() * scale)

    def latent_losses(
        self,
        target_BCHW: Tensor,
        condition_BCHW: Tensor,
        embedding_BD: Tensor,
        pose_B4: Tensor,
        generator: torch.Generator | None = None,
        drop: float = CONDITIONING_DROP,
        timesteps: TimestepDensity = UNIFORM,
    ) -> tuple[Tensor, Tensor]:
        """Return `losses` for latents.

        Args:
            target_BCHW: Scaled target latents `[B, C, h, w]`.
            condition_BCHW: Condition latents `[B, C, h, w]`, not scaled.
            embedding_BD: Image embeddings of the conditions.
            pose_B4: Pose vectors.
            generator: Source of timesteps and noise, on the device of the latents.
            drop: Probability p of `training.model.conditioning.drop_out`.
            timesteps: Density of the timesteps.
        """
        batch, device = len(target_BCHW), target_BCHW.device
        u_B = torch.rand(batch, generator=generator, device=device)
        timesteps_B = sample_timesteps(timesteps, len(self.alphas_cumprod), batch, generator, device)
        noise = torch.randn(target_BCHW.shape, generator=generator, device=device, dtype=target_BCHW.dtype)
        signal, sigma = self._levels(timesteps_B)
        noisy = (signal * target_BCHW + sigma * noise).to(target_BCHW.dtype)  # DDPM, equation 4
        embedding_BD, condition_BCHW = drop_out(u_B, embedding_BD, condition_BCHW, drop)
        context = self.context(embedding_BD, pose_B4)
        output = self._denoise(noisy, timesteps_B, context, condition_BCHW).float()
        match self.prediction:
            case Prediction.epsilon:
                error = (output - noise).square()
            case Prediction.v_prediction:
                error = (output - (signal * noise - sigma * target_BCHW)).square()
            case Prediction.sample:
                # The loss of v-prediction, with its weight bounded where there is little noise.
                error = (1 / sigma**2).clamp(max=MAX_LOSS_WEIGHT) * (output - target_BCHW).square()
        return error.mean(dim=(1, 2, 3)), timesteps_B

    def _denoise(self, noisy: Tensor, timesteps: Tensor, context: Tensor, condition: Tensor) -> Tensor:
        joined, dtype = torch.cat([noisy, condition], dim=1), self.unet.dtype
        return apply_unet(self.unet, joined.to(dtype), timesteps, context.to(dtype))

    def _levels(self, timesteps_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return √ᾱ and √(1-ᾱ), `[B, 1, 1, 1]` each."""
        alpha = self.alphas_cumprod[timesteps_B][:, None, None, None]
        return alpha.sqrt(), (1 - alpha).sqrt()


def posterior(moments_BCHW: Tensor) -> DiagonalGaussianDistribution:
    """Return the posterior of an autoencoder for stored moments `[B, 2C, h, w]`, mean and log-variance."""
    return DiagonalGaussianDistribution(moments_BCHW.float())


def noise_schedule(
    prediction: Prediction = Prediction.epsilon, clip: float | None = None, beta_end: float = 0.012
) -> DDIMScheduler:
    """Return the noise schedule: T = 1000, β from 0.00085 to `beta_end` linear in √β; DDIM timesteps offset by one.

    Args:
        prediction: Prediction type of the U-Net.
        clip: Bound on the clean latent predicted at each step, for models of pixels, whose sampling also ends without
            noise, since no autoencoder removes it; None for latents of an autoencoder.
        beta_end: β of the last timestep; Stable Diffusion's by default.
    """
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=BETA_START,
        beta_end=beta_end,
        beta_schedule="scaled_linear",
        prediction_type=prediction.value,
        timestep_spacing="leading",
        steps_offset=1,
        set_alpha_to_one=clip is not None,
        clip_sample=clip is not None,
        clip_sample_range=clip or 1.0,
    )


def _downscale(vae: Autoencoder) -> int:
    return vae.config["patch"] if "patch" in vae.config else 2 ** (len(vae.config["block_out_channels"]) - 1)
