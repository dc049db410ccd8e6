"""Define the interface of guides, from which a reconstruction requests views of the object."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rendering.cameras import Array

OnStep = Callable[[int, int], object]  # called with the numbers of steps done and in total


@dataclass(frozen=True)
class DrawnViews:
    """Views that a guide samples.

    Attributes:
        pictures: The object on white, uint8 `[N, R, R, 3]`.
        masks: Coverage by the object, float32 `[N, R, R]` in [0, 1].
    """

    pictures: NDArray[np.uint8]
    masks: NDArray[np.float32]


class Guide(Protocol):
    """A model of the appearance of one object from any camera.

    Latents `[B, C, h, w]` are scaled as the model denoises them. A *canvas* `[B, K, h, w]` is the picture that a field
    renders for a score: latents of an autoencoder that is not linear, else pixels in [-1, 1].

    Attributes:
        resolution: Pixels R per side of a view.
        input_camera: Extrinsics `[3, 4]` of the input picture's camera.
        alphas_cumprod: ᾱ of each timestep, `[T]`, on the device of the guide.
        canvas_channels: K.
        canvas_size: Side of a canvas in pixels.
    """

    resolution: int
    input_camera: Array
    alphas_cumprod: Tensor
    canvas_channels: int
    canvas_size: int

    def draw(self, cameras: Array, seed: int, on_step: OnStep) -> DrawnViews:
        """Draw a view for each camera `[N, 3, 4]` from noise."""

    def redraw(
        self, cameras: Array, pictures: NDArray[np.uint8], strength: float, seed: int, on_step: OnStep
    ) -> DrawnViews:
        """Add noise to pictures `[N, R, R, 3]` up to the share `strength` of the timesteps, and denoise them."""

    def denoise(self, noisy_BCHW: Tensor, timesteps_B: Tensor, cameras: Array, scale: float) -> Tensor:
        """Return the clean latents that guidance of a `scale` predicts for noisy ones from cameras `[B, 3, 4]`."""

    def encode_canvas(self, canvas_BKHW: Tensor) -> Tensor:
        """Return the latents of a canvas, differentiable."""

    def decode_canvas(self, canvas_BKHW: Tensor) -> Tensor:
        """Return the pictures `[B, 3, R, R]` in [-1, 1] of a canvas, differentiable."""

    def silhouettes(self, clean_BCHW: Tensor, cameras: Array) -> Tensor:
        """Return the object's coverage `[B, S, S]` in [0, 1] of the pixels of canvases, given clean latents."""

    def white(self) -> Tensor:
        """Return the mean canvas value `[K]` of a white picture."""


def shows_pixels(guide: Guide) -> bool:
    """Return whether the canvases of a guide are pixels, rather than latents."""
    return guide.canvas_channels == 3
