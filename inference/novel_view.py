"""Sample novel views of the object in a picture from a checkpoint."""

import functools
import itertools
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
from inference.config import Precision, Sampling, Unconditional
from inference.poses import pose_vectors, validate_turns
from inference.preprocess.framing import Prepared, prepare
from inference.preprocess.photograph import Picture
from inference.samplers import sample, steps_of
from training.model.fingerprint import fingerprint
from training.model.guidance import Denoiser, guided
from training.model.pretrained import load_posed
from training.model.untrusted_file import require_finite
from training.model.zero123 import Zero123

BATCH = {"cpu": 4, "cuda": 64}  # poses denoised together, at most


@dataclass(frozen=True)
class EncodedImage:
    """Encoded input pictures: latents `[N, C, h, w]` and embeddings `[N, D]`."""

    condition: Tensor
    embedding: Tensor


@dataclass(frozen=True)
class NovelView:
    """A loaded checkpoint. Call it with a picture and relative camera poses.

    views = NovelView.load("outputs/run/model")("chair.jpg", [[0, 90, 0], [-30, 0, 0]], steps=50, seed=0)
    """

    model: Zero123

    @classmethod
    def load(
        cls,
        checkpoint: str | Path,
        device: str = "auto",
        precision: Precision | str = Precision.auto,
        compile: bool = False,
    ) -> Self:
        """Read a checkpoint onto a device: a folder of training.finetune, the community's or threestudio's, or a file
        of the original's, which is read without executing anything.

        Half precision is for U-Net, autoencoder and image encoder; the steps between are in float32 always. On a CPU
        `auto` is for the U-Net alone, which nearly all of the time goes to.
        `compile` lets torch build a U-Net for each shape of batch, on a GPU as CUDA graphs.

        Raises:
            UserError: it is no checkpoint, or the device is not there.
        """
        device = resolve_device(device)
        model = load_posed(checkpoint)
        model.to(device).eval()
        parts: tuple[nn.Module, ...] = (model.unet, model.vae, model.image_encoder)
        if precision == Precision.auto:
            precision = Precision.float16
            if device == "cpu":
                parts, precision = parts[:1], _fastest_on_cpu(model)
        for part in parts:
            nn.Module.to(part, getattr(torch, Precision(precision).value))  # diffusers' own warns of nothing
            if precision == Precision.float16:
                require_finite(part, f"{checkpoint}: in half precision its", "use precision=float32")
        if compile:
            # A CUDA graph writes each prediction over the last: guidance and samplers make their own tensors of it.
            model.unet.to(memory_format=torch.channels_last)  # type: ignore[call-arg]
            model.unet.compile(mode="default" if device == "cpu" else "reduce-overhead", dynamic=False)
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
                `prepare` or `see`, which is used as it is.
            poses: `[N, 3]`, rows `[Δpolar, Δazimuth, Δradius]` in degrees, degrees and object sizes.
            sampling: Sampler settings.
            cutout: How the background of a picture is removed, as of `inference.preprocess.framing.prepare`.
            fill: The object's share of the frame, as of `inference.preprocess.framing.prepare`.
            elevation: Degrees of the input camera above the horizon, for checkpoints of Stable-Zero123.
            on_step: Called with the steps made and the steps in all, in place of a progress bar.
            bar: Name of the progress bar.
            settings: Fields of `Sampling` by name, which override `sampling`: `steps=50, guidance=3.0, seed=0`.

        Returns:
            A picture for each pose, at the checkpoint's resolution.

        Raises:
            PictureError: The picture cannot be read, is blank, or no object is found in it.
            UserError: A pose is not three finite numbers, or a setting is out of its range.
        """
        turns = validate_turns(np.asarray(poses).tolist())
        vectors = pose_vectors(turns, self.model.cc_projection.pose_vector, elevation)
        sampling = replace(sampling, **settings)
        seen = picture if isinstance(picture, EncodedImage) else self.encode(picture, cutout=cutout, fill=fill)
        views = self.sample(seen, vectors, sampling, None, on_step, bar)
        return [to_image(view) for view in views]

    def prepare(self, picture: Picture, cutout: str = "auto", fill: float | None = None) -> Prepared:
        """Prepare a picture at the resolution of the checkpoint (`inference.preprocess.framing.prepare`)."""
        return prepare(picture, cutout, fill, self.model.resolution)

    @torch.no_grad()
    def encode(self, *pictures: Picture | Prepared, cutout: str = "auto", fill: float | None = None) -> EncodedImage:
        """Encode pictures once, for any number of calls; those that are not prepared are prepared as in `__call__`."""
        prepared = [one if isinstance(one, Prepared) else self.prepare(one, cutout, fill) for one in pictures]
        inputs = [to_tensor(one.image, self.model.resolution).to(self.model.device) for one in prepared]
        latents = [self.model.condition_latent(input) for input in inputs]
        return EncodedImage(torch.cat(latents), torch.cat([self.model.embed(input) for input in inputs]))

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of all weights and settings of the model, as they are on its device."""
        return fingerprint(self.model)

    @torch.no_grad()
    def sample(
        self,
        seen: EncodedImage,
        poses_N4: ArrayLike,
        sampling: Sampling,
        seeds: Sequence[int] | None = None,
        on_step: Callable[[int, int], object] | None = None,
        bar: str = "sampling",
    ) -> Tensor:
        """Pictures `[N, 3, R, R]` in [-1, 1] after each pose vector (radians), of one seen picture or of N.

        `seeds` give each its noise; without them all have `sampling.seed`.
        """
        model, most, drawn = self.model, BATCH[self.model.device.type], 0
        poses = torch.as_tensor(np.asarray(poses_N4), dtype=torch.float32, device=model.device)
        condition, embedding = (part.expand(len(poses), *part.shape[1:]) for part in (seen.condition, seen.embedding))
        seeds = [sampling.seed] * len(poses) if seeds is None else seeds
        steps, views = steps_of(model, sampling), list[Tensor]()
        with tqdm(total=len(poses) * steps, desc=bar, unit=" steps", disable=on_step is not None) as shown:

            def done(count: int) -> None:
                shown.update(count - shown.n)
                if on_step is not None:
                    on_step(count, len(poses) * steps)

            while drawn < len(poses):
                batch = slice(drawn, drawn + most)
                size = len(poses[batch])
                denoise = denoiser(model, condition[batch], embedding[batch], poses[batch], sampling)
                try:
                    latents = sample(model, denoise, seeds[batch], sampling, _teller(done, drawn * steps, size))
                    views.append(_finite(model.decode(latents).cpu()))
                except torch.OutOfMemoryError:
                    if most == 1:
                        raise UserError("the device has too little memory for a single view; try device=cpu") from None
                    most = max(1, size // 2)
                    continue
                drawn += size
        return torch.cat(views)


def denoiser(model: Zero123, condition: Tensor, embedding_BD: Tensor, poses_B4: Tensor, sampling: Sampling) -> Denoiser:
    """Guided as `sampling` says, with the null token that it names."""
    null = None
    if sampling.unconditional is Unconditional.trained:
        null = model.context(torch.zeros_like(embedding_BD), poses_B4)
    context = model.context(embedding_BD, poses_B4)
    return guided(model, context, condition, sampling.guidance, sampling.image_guidance, null)


def _finite(views_N3RR: Tensor) -> Tensor:
    if not views_N3RR.isfinite().all():
        raise UserError("the model draws no finite pictures; use precision=float32, or another checkpoint")
    return views_N3RR


def _teller(done: Callable[[int], None], before: int, size: int) -> Callable[[], None]:
    """Counts the steps of a batch of `size` poses on top of those made `before`."""
    counts = itertools.count(before + size, size)
    return lambda: done(next(counts))


def _fastest_on_cpu(model: Zero123) -> Precision:
    """bfloat16 where the processor multiplies in it; it spares a model of pixels nothing, and each pixel an error."""
    able = torch.cpu.get_capabilities()
    half = able.get("avx512_bf16") or able.get("amx_bf16")
    return Precision.bfloat16 if half and isinstance(model.vae, AutoencoderKL) else Precision.float32


def resolve_device(device: str) -> str:
    """The device that `auto` means here, or the one that was asked for.

    Raises:
        UserError: it is not there.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device not in ("cpu", "cuda") and not device.startswith("cuda:"):
        raise UserError(f"device={device} is none of auto, cpu, cuda")
    if device != "cpu" and not torch.cuda.is_available():
        raise UserError(f"device={device}: this machine has no CUDA device that torch can use")
    return device


def to_tensor(image: Image.Image, resolution: int) -> Tensor:
    """Return a prepared picture, square RGB, as `[1, 3, R, R]` in [-1, 1]."""
    if image.width != image.height or image.mode != "RGB":
        raise UserError(f"image: the prepared picture is {image.mode} {image.size}; give a square RGB one on white")
    image = image.resize((resolution, resolution), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1


def to_image(view_3RR: Tensor) -> Image.Image:
    """A picture in [-1, 1] as 8-bit RGB."""
    return Image.fromarray(((view_3RR + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy())
