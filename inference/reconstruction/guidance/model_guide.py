"""Use a trained checkpoint as a guide."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.utils.torch_utils import randn_tensor
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from inference.batches import in_batches
from inference.config import Sampling
from inference.novel_view import MAX_BATCH, EncodedImage, NovelView, denoiser, to_image
from inference.reconstruction.guidance.guide import DrawnViews, OnStep
from inference.reconstruction.guidance.silhouette import silhouette
from rendering.cameras import Array, camera_centre, cartesian_to_spherical, relative_pose
from training.model.conditioning import POSE_DIM, convert_pose
from training.model.ddim import ddim, ddim_timesteps
from training.model.guidance import Denoiser
from training.model.picture import as_floats

MIN_REDRAW_STEPS = 50  # of DDIM for all timesteps


class ModelGuide:
    """A checkpoint of Zero-1-to-3 with one input picture; see `Guide`.

    Args:
        novel_view: The checkpoint.
        encoded: The encoded input picture.
        input_camera: Extrinsics `[3, 4]` of its camera.
        sampling: Settings of the sampler.
        posed: Whether the checkpoint is given the pose. Without it, embedding and pose vector of the context token are
            zero, and all views are variations of the picture.
    """

    def __init__(
        self,
        novel_view: NovelView,
        encoded: EncodedImage,
        input_camera: Array,
        sampling: Sampling,
        posed: bool = True,
    ) -> None:
        model = novel_view.model
        self.posed = posed
        if not posed:
            encoded = EncodedImage(encoded.condition, torch.zeros_like(encoded.embedding))
        self.novel_view, self.encoded, self.sampling = novel_view, encoded, sampling
        self.input_camera, self.resolution, self.alphas_cumprod = input_camera, model.resolution, model.alphas_cumprod
        self.is_latent = isinstance(model.vae, AutoencoderKL)
        self.canvas_channels = model.latent_channels if self.is_latent else 3
        self.canvas_size = model.latent_size if self.is_latent else model.resolution
        self.scaling_factor = float(model.vae.config["scaling_factor"])

    def draw(self, cameras: Array, seed: int, on_step: OnStep) -> DrawnViews:
        """Draw a view for each camera `[N, 3, 4]` from noise, the noise of all views being the same."""
        sampling = replace(self.sampling, seed=seed)
        return drawn(self.novel_view.sample(self.encoded, self.poses(cameras), sampling, None, on_step))

    @torch.no_grad()
    def redraw(
        self, cameras: Array, pictures: NDArray[np.uint8], strength: float, seed: int, on_step: OnStep
    ) -> DrawnViews:
        """Add noise to pictures `[N, R, R, 3]` up to the share `strength` of the timesteps, and denoise them.

        As SDEdit (arXiv 2108.01073), with DDIM from the timestep reached, and at least the steps that DDIM needs:
        those of `sampling` may be the fewer ones of another sampler.
        """
        model, sampling = self.novel_view.model, self.sampling
        timesteps = ddim_timesteps(max(sampling.steps, MIN_REDRAW_STEPS), len(self.alphas_cumprod))
        timesteps = timesteps[: max(1, round(strength * len(timesteps)))]
        alpha = self.alphas_cumprod[timesteps[-1]]
        vectors = torch.as_tensor(self.poses(cameras), dtype=torch.float32, device=model.device)

        def denoise(batch: slice, on_batch_step: Callable[[], object]) -> Tensor:
            clean = self._latents(pictures[batch])
            generators = [torch.Generator().manual_seed(seed) for _ in clean]
            noise = randn_tensor(clean.shape, generator=generators, device=clean.device, dtype=clean.dtype)
            noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
            predict = self._denoiser(vectors[batch], sampling.guidance)
            return ddim(predict, noisy, timesteps, model.scheduler, sampling.eta, generators, on_batch_step)

        count, steps = len(cameras), len(timesteps)
        report, max_batch = lambda done: on_step(done, count * steps), MAX_BATCH[model.device.type]
        limit = self.novel_view.batch_limit
        return drawn(in_batches(denoise, model.decode, count, steps, report, max_batch, limit))

    @torch.no_grad()
    def denoise(self, noisy_BCHW: Tensor, timesteps_B: Tensor, cameras: Array, scale: float) -> Tensor:
        """Return the clean latents that guidance of a `scale` predicts for noisy ones from cameras `[B, 3, 4]`."""
        vectors = torch.as_tensor(self.poses(cameras), dtype=torch.float32, device=noisy_BCHW.device)
        noise = self._denoiser(vectors, scale)(noisy_BCHW, timesteps_B)
        alpha = self.alphas_cumprod[timesteps_B][:, None, None, None]
        return (noisy_BCHW - (1 - alpha).sqrt() * noise) / alpha.sqrt()

    def encode_canvas(self, canvas_BKHW: Tensor) -> Tensor:
        """Return the latents of a canvas, differentiable."""
        if self.is_latent:
            return canvas_BKHW
        return self.novel_view.model.vae.encode(canvas_BKHW).latent_dist.mode() * self.scaling_factor

    def decode_canvas(self, canvas_BKHW: Tensor) -> Tensor:
        """Return the pictures `[B, 3, R, R]` in [-1, 1] of a canvas, differentiable."""
        if not self.is_latent:
            return canvas_BKHW
        vae = self.novel_view.model.vae
        return vae.decode((canvas_BKHW / self.scaling_factor).to(vae.dtype)).sample.to(canvas_BKHW.dtype)

    @torch.no_grad()
    def silhouettes(self, clean_BCHW: Tensor, cameras: Array) -> Tensor:
        """Return the coverage `[B, S, S]` of the object in the pictures of clean latents, at the canvas's size."""
        masks = torch.from_numpy(drawn(self.novel_view.model.decode(clean_BCHW).cpu()).masks).to(clean_BCHW)
        return functional.interpolate(masks[:, None], (self.canvas_size,) * 2, mode="area")[:, 0]

    @torch.no_grad()
    def white(self) -> Tensor:
        """Return the mean canvas value `[K]` of a white picture."""
        model = self.novel_view.model
        if not self.is_latent:
            return torch.ones(3, device=model.device)
        picture = torch.ones(1, 3, self.resolution, self.resolution, device=model.device)
        return (model.condition_latent(picture) * self.scaling_factor).mean(dim=(0, 2, 3))

    def poses(self, cameras: Array) -> Array:
        """Return the pose vectors `[N, 4]` of cameras, as the checkpoint defines them; zero without a pose."""
        if not self.posed:
            return np.zeros((len(cameras), POSE_DIM))
        relative = torch.from_numpy(np.stack([relative_pose(camera, self.input_camera) for camera in cameras]))
        polar = cartesian_to_spherical(camera_centre(self.input_camera))[0]
        polars = torch.full((len(cameras),), polar, dtype=torch.float64)
        vectors: Array = convert_pose(self.novel_view.model.cc_projection.pose_vector, relative, polars).numpy()
        return vectors

    def _latents(self, pictures: NDArray[np.uint8]) -> Tensor:
        model = self.novel_view.model
        images = as_floats(torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))).to(model.device))
        return model.condition_latent(images) * self.scaling_factor

    def _denoiser(self, vectors_B4: Tensor, scale: float) -> Denoiser:
        size = len(vectors_B4)
        condition, embedding = (
            part.expand(size, *part.shape[1:]) for part in (self.encoded.condition, self.encoded.embedding)
        )
        return denoiser(self.novel_view.model, condition, embedding, vectors_B4, replace(self.sampling, guidance=scale))


def drawn(views_N3RR: Tensor) -> DrawnViews:
    """Return views in [-1, 1] as bytes, with their silhouettes."""
    pictures = np.stack([np.asarray(to_image(view)) for view in views_N3RR])
    return DrawnViews(pictures, np.stack([silhouette(picture) for picture in pictures]))
