"""Use a mesh as a guide: its renders replace the model's views, which gives the upper bound of a method."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference.meshes.ray_casting import RayCaster, on_white
from inference.reconstruction.guidance.guide import DrawnViews, OnStep
from rendering.cameras import Array
from training.model.zero123 import noise_schedule


class OracleGuide:
    """A denoiser that knows the object; see `Guide`. Latents and canvases are its pixels, in its texture's colours.

    Args:
        caster: The mesh, centred, its longest side 1.
        input_camera: Extrinsics `[3, 4]` of the input picture's camera.
        resolution: Pixels R per side of a view.
    """

    canvas_channels = 3

    def __init__(self, caster: RayCaster, input_camera: Array, resolution: int) -> None:
        self.caster, self.input_camera, self.resolution = caster, input_camera, resolution
        self.canvas_size = resolution
        self.alphas_cumprod = noise_schedule().alphas_cumprod.float()

    def draw(self, cameras: Array, seed: int, on_step: OnStep) -> DrawnViews:
        """Return the true view for each camera `[N, 3, 4]`."""
        rgba = self.caster.render(cameras, self.resolution)
        on_step(len(cameras), len(cameras))
        return DrawnViews(on_white(rgba), rgba[..., 3].astype(np.float32) / 255)

    def redraw(
        self, cameras: Array, pictures: NDArray[np.uint8], strength: float, seed: int, on_step: OnStep
    ) -> DrawnViews:
        """Return the true views, whatever the pictures."""
        return self.draw(cameras, seed, on_step)

    def denoise(self, noisy_BCHW: Tensor, timesteps_B: Tensor, cameras: Array, scale: float) -> Tensor:
        """Return the true views of cameras `[B, 3, 4]`, whatever the noise."""
        pictures = self.draw(cameras, 0, lambda done, total: None).pictures
        return torch.from_numpy(pictures).permute(0, 3, 1, 2).to(noisy_BCHW) / 127.5 - 1

    def encode_canvas(self, canvas_BKHW: Tensor) -> Tensor:
        """Return the latents of a canvas: its pixels."""
        return canvas_BKHW

    def decode_canvas(self, canvas_BKHW: Tensor) -> Tensor:
        """Return the pictures of a canvas: its pixels."""
        return canvas_BKHW

    def silhouettes(self, clean_BCHW: Tensor, cameras: Array) -> Tensor:
        """Return the true coverage `[B, R, R]` of the pixels."""
        return torch.from_numpy(self.draw(cameras, 0, lambda done, total: None).masks).to(clean_BCHW)

    def white(self) -> Tensor:
        """Return white."""
        return torch.ones(3)
