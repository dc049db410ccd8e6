"""Sample novel views of the object in a picture from a checkpoint."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from numpy.typing import ArrayLike
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from conf.options import UserError
from inference.batches import BatchLimit, in_batches
from inference.config import Sampling, Unconditional
from inference.poses import pose_vectors, validate_turns
from inference.preprocess.framing import Prepared, prepare
from inference.preprocess.photograph import Picture
from inference.samplers import sample, steps_of
from inference.shipped_model import shipped_model
from training.model.checkpoints.fingerprint import fingerprint
from training.model.checkpoints.pretrained import load_posed
from training.model.checkpoints.untrusted_file import require_finite
from training.model.compilation import compile_unet
from training.model.guidance import Denoiser, guided
from training.model.hardware.device import resolve_device, torch_dtype
from training.model.hardware.precision import Precision, parse_precision
from training.model.zero123 import Zero123

MAX_BATCH = {"cpu": 4, "cuda": 64}  # poses denoised together


@dataclass(frozen=True)
class EncodedImage:
    """Encoded input pictures: latents `[N, C, h, w]` and embeddings `[N, D]`."""

    condition: Tensor
    embedding: Tensor


@dataclass(frozen=True)
class NovelView:
    """A loaded checkpoint of Zero-1-to-3 (arXiv 2303.11328). Call it with a picture and relative camera poses.

        picture ── prepare ──▶ image [R, R] ── encode ──▶ EncodedImage ┐
        poses [N, 3], degrees ── pose_vectors ──▶ [N, 4], radians ─────┴── sample ──▶ views [N, 3, R, R]

    Example:
        views = NovelView.load()("chair.jpg", [[0, 90, 0], [-30, 0, 0]], steps=50, seed=0)
    """

    model: Zero123

    @classmethod
    def load(
        cls,
        checkpoint: str | Path | None = None,
        device: str = "auto",
        precision: Precision | str = Precision.auto,
        compile: bool = False,
    ) -> Self:
        """Load a checkpoint onto a device. Nothing in its files is executed.

        Args:
            checkpoint: A folder that training.finetune wrote or in the layout of the community pipeline or of
                threestudio, a file of the original code, or org/name on the Hugging Face hub. None: the model that
                comes with the project.
            device: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:1".
            precision: Number format of U-Net, autoencoder and image encoder: "float32", "bfloat16", "float16" or
                "auto". On a GPU "auto" is float16; on a CPU it is bfloat16 for the U-Net, which takes nearly all of
                the time, where the processor has units for it, else float32. The sampler computes in float32.
            compile: Compile the U-Net for each shape of batch, on a GPU as CUDA graphs.

        Raises:
            UserError: There is no such checkpoint, device or precision, or a weight overflows in float16.
        """
        torch_device, precision = resolve_device(device), parse_precision(precision)
        checkpoint = shipped_model() if checkpoint is None else checkpoint
        model = load_posed(checkpoint)
        model.to(torch_device).eval()
        parts: tuple[nn.Module, ...] = (model.unet, model.vae, model.image_encoder)
        if precision is Precision.auto:
            precision = Precision.float16
            if torch_device.type == "cpu":
                parts, precision = parts[:1], _fastest_on_cpu(model)
        for part in parts:
            # The method `to` of diffusers' models warns about submodules that must stay in float32; there are none.
            nn.Module.to(part, torch_dtype(precision))
            if precision is Precision.float16:
                require_finite(part, f"{checkpoint}: in float16 its", "use precision=float32")
        if compile:
            # A CUDA graph overwrites its last prediction; guidance and samplers copy from it before the next call.
            model.unet.to(memory_format=torch.channels_last)  # type: ignore[call-arg]
            compile_unet(model.unet, "default" if torch_device.type == "cpu" else "reduce-overhead")
        return cls(model)

    def __call__(
        self,
        picture: Picture | Prepared | EncodedImage,
        poses: ArrayLike,
        sampling: Sampling = Sampling(),
        *,
        cutout: str = "auto",
        fill: float | None = None,
        elevation: float | None = None,
        on_step: Callable[[int, int], object] | None = None,
        bar: str = "sampling",
        **settings: Any,
    ) -> list[Image.Image]:
        """Sample a view of the object after each of `poses`; a view does not depend on the other poses.

        Args:
            picture: A path, a PIL image or an array, which is prepared as by `inference.sample`; or the result of
                `prepare` or `encode`, which is used as it is.
            poses: `[N, 3]`, rows `[Δpolar, Δazimuth, Δradius]` in degrees, degrees and object sizes.
            sampling: Sampler settings.
            cutout: How the background of a picture is removed, as in `inference.prepare`.
            fill: The object's share of the frame, as in `inference.prepare`.
            elevation: Degrees of the input camera above the horizon, for checkpoints of Stable-Zero123.
            on_step: Called with the numbers of steps done and in total, in place of a progress bar.
            bar: Name of the progress bar.
            settings: Fields of `Sampling` by name, which override `sampling`: `steps=50, guidance=3.0, seed=0`.

        Returns:
            A picture for each pose, at the checkpoint's resolution.

        Raises:
            PictureError: The picture cannot be read, is blank, or no object is found in it.
            UserError: A pose is not three finite numbers, or a setting is out of its range.
        """
        turns = validate_turns(_nested_lists(poses))
        vectors = pose_vectors(turns, self.model.cc_projection.pose_vector, elevation)
        sampling = replace(sampling, **settings)
        encoded = picture if isinstance(picture, EncodedImage) else self.encode(picture, cutout=cutout, fill=fill)
        return [to_image(view) for view in self.sample(encoded, vectors, sampling, None, on_step, bar)]

    def prepare(self, picture: Picture, cutout: str = "auto", fill: float | None = None) -> Prepared:
        """Remove the background of a picture and frame its object at the checkpoint's resolution.

        Args and errors are those of `inference.prepare`.
        """
        return prepare(picture, cutout, fill, self.model.resolution)

    @torch.no_grad()
    def encode(self, *pictures: Picture | Prepared, cutout: str = "auto", fill: float | None = None) -> EncodedImage:
        """Encode pictures, to be sampled from several times.

        Args:
            pictures: Results of `prepare`, which are used as they are, or pictures, which are prepared first.
            cutout: As in `prepare`.
            fill: As in `prepare`.

        Returns:
            The latents, not scaled, and the image embeddings of the pictures (section 3.2 of the paper).

        Raises:
            PictureError: A picture cannot be read, is blank, or no object is found in it.
            UserError: A prepared picture is not square RGB.
        """
        prepared = [
            picture if isinstance(picture, Prepared) else self.prepare(picture, cutout, fill) for picture in pictures
        ]
        inputs = [to_tensor(one.image, self.model.resolution).to(self.model.device) for one in prepared]
        latents = [self.model.condition_latent(input) for input in inputs]
        return EncodedImage(torch.cat(latents), torch.cat([self.model.embed(input) for input in inputs]))

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of all weights and settings of the model, as they are on its device."""
        return fingerprint(self.model)

    @functools.cached_property
    def batch_limit(self) -> BatchLimit:
        """Largest batch of this model that fitted into memory, where a larger one did not."""
        return BatchLimit()

    @torch.no_grad()
    def sample(
        self,
        encoded: EncodedImage,
        poses_N4: ArrayLike,
        sampling: Sampling,
        seeds: Sequence[int] | None = None,
        on_step: Callable[[int, int], object] | None = None,
        bar: str = "sampling",
        max_batch: int | None = None,
    ) -> Tensor:
        """Sample a view after each pose vector, in batches that are halved where memory does not suffice.

        Args:
            encoded: One encoded picture, or one for each pose.
            poses_N4: Pose vectors `[N, 4]`, as from `inference.poses.pose_vectors` (radians).
            sampling: Sampler settings.
            seeds: The seed of each view; `sampling.seed` for all by default.
            on_step: As in `__call__`.
            bar: As in `__call__`.
            max_batch: Number of views that are denoised together; None for the device's default.

        Returns:
            Views `[N, 3, R, R]` in [-1, 1], on the CPU.

        Raises:
            UserError: A single view does not fit into memory, or a view is not finite.
        """
        model = self.model
        poses = torch.as_tensor(np.asarray(poses_N4), dtype=torch.float32, device=model.device)
        condition, embedding = (
            part.expand(len(poses), *part.shape[1:]) for part in (encoded.condition, encoded.embedding)
        )
        seeds = [sampling.seed] * len(poses) if seeds is None else seeds
        steps = steps_of(model, sampling)

        def denoise(batch: slice, on_batch_step: Callable[[], object]) -> Tensor:
            predict = denoiser(model, condition[batch], embedding[batch], poses[batch], sampling)
            return sample(model, predict, condition[batch], seeds[batch], sampling, on_batch_step)

        with tqdm(total=len(poses) * steps, desc=bar, unit=" steps", disable=on_step is not None) as progress:

            def report(done: int) -> None:
                progress.update(done - progress.n)
                if on_step is not None:
                    on_step(done, len(poses) * steps)

            max_batch = max_batch or MAX_BATCH[model.device.type]
            return in_batches(denoise, model.decode, len(poses), steps, report, max_batch, self.batch_limit)


def denoiser(model: Zero123, condition: Tensor, embedding_BD: Tensor, poses_B4: Tensor, sampling: Sampling) -> Denoiser:
    """Return the model with classifier-free guidance and the unconditional context that `sampling` names."""
    unconditional = None
    if sampling.unconditional is Unconditional.trained:
        unconditional = model.context(torch.zeros_like(embedding_BD), poses_B4)
    context = model.context(embedding_BD, poses_B4)
    return guided(model, context, condition, sampling.guidance, sampling.image_guidance, unconditional)


def _nested_lists(poses: ArrayLike) -> Any:
    """Return an array as nested lists; what is none, such as rows of different lengths, as it is."""
    try:
        return np.asarray(poses).tolist()
    except (ValueError, TypeError):
        return poses


def _fastest_on_cpu(model: Zero123) -> Precision:
    """Return bfloat16 where the processor has units for it, else float32.

    A model of pixels stays in float32: it gains no time, and each pixel would carry the rounding error.
    """
    capabilities = torch.cpu.get_capabilities()
    has_bfloat16 = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return Precision.bfloat16 if has_bfloat16 and isinstance(model.vae, AutoencoderKL) else Precision.float32


def to_tensor(image: Image.Image, resolution: int) -> Tensor:
    """Return a prepared picture as `[1, 3, R, R]` in [-1, 1]; raise `UserError` unless it is square RGB."""
    if image.width != image.height or image.mode != "RGB":
        raise UserError(f"image: the prepared picture is {image.mode} {image.size}; give a square RGB one on white")
    image = image.resize((resolution, resolution), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1


def to_image(view_3RR: Tensor) -> Image.Image:
    """Return a view in [-1, 1] as 8-bit RGB."""
    return Image.fromarray(((view_3RR + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy())
