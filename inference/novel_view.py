"""From a checkpoint and one picture to the same object from elsewhere."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from conf.options import UserError
from inference.config import Sampling
from rendering.cameras import pose_vector
from training.model import checkpoint
from training.model.ddim import ddim_timesteps, novel_views
from training.model.zero123 import Zero123

BATCH = 16  # poses denoised together


@dataclass(frozen=True)
class NovelView:
    """A loaded checkpoint. Call it with a picture and the turns to be seen."""

    model: Zero123

    @classmethod
    def load(cls, folder: str | Path, device: str = "auto") -> Self:
        """Read a checkpoint folder onto a device.

        Raises:
            UserError: the folder is no checkpoint, or the device is not there.
        """
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device not in ("cpu", "cuda") and not device.startswith("cuda:"):
            raise UserError(f"device={device} is none of auto, cpu, cuda")
        if device != "cpu" and not torch.cuda.is_available():
            raise UserError(f"device={device}: this machine has no CUDA device that torch can use")
        return cls(checkpoint.load(folder).to(device).eval())

    def __call__(self, image: Image.Image, poses: ArrayLike, sampling: Sampling = Sampling()) -> list[Image.Image]:
        """The object of `image` (RGB, square) after each of `poses` `[N, 3]`, as `[Δpolar, Δazimuth, Δradius]`
        in degrees, degrees and object sizes."""
        polar, azimuth, radius = np.asarray(poses, dtype=np.float64).T
        vectors = [pose_vector(*pose) for pose in zip(np.radians(polar), np.radians(azimuth), radius, strict=True)]
        condition = to_tensor(image, self.model.resolution)
        views = self.draw(condition.expand(len(vectors), -1, -1, -1), np.stack(vectors), sampling)
        return [to_image(view) for view in views]

    def draw(self, images_N3RR: Tensor, poses_N4: ArrayLike, sampling: Sampling) -> Tensor:
        """Pictures `[N, 3, R, R]` in [-1, 1] of each image's object after each pose vector (radians)."""
        device = self.model.device
        poses = torch.as_tensor(np.asarray(poses_N4), dtype=torch.float32)
        # Each pose has noise of its own, so that its picture does not depend on its company.
        noises = [torch.Generator(device).manual_seed(sampling.seed * 1_000_003 + n) for n in range(len(poses))]
        steps = len(ddim_timesteps(sampling.steps, len(self.model.alphas_cumprod)))
        drawn = []
        with tqdm(total=math.ceil(len(poses) / BATCH) * steps, desc="sampling", unit=" steps") as bar:
            for i in range(0, len(poses), BATCH):
                batch = slice(i, i + BATCH)
                view = novel_views(
                    self.model,
                    images_N3RR[batch].to(device),
                    poses[batch].to(device),
                    sampling.steps,
                    sampling.guidance,
                    sampling.eta,
                    noises[batch],
                    on_step=bar.update,
                )
                drawn.append(view.cpu())
        return torch.cat(drawn)


def to_tensor(image: Image.Image, resolution: int) -> Tensor:
    """A square RGB picture as `[1, 3, R, R]` in [-1, 1]."""
    if image.size != (resolution, resolution):
        image = image.resize((resolution, resolution), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1


def to_image(view_3RR: Tensor) -> Image.Image:
    """A picture in [-1, 1] as 8-bit RGB."""
    return Image.fromarray(((view_3RR + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy())
