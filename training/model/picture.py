"""From an encoded view to the pixels that the model is given."""

import io
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LARGEST_SIDE = 4096  # pixels; a larger picture is taken for damage before it fills the memory


class Background(StrEnum):
    """How a picture with transparency becomes one on white."""

    composite = "composite"  # rgb·α + 1-α
    original = "original"  # white only where α = 0, straight colours elsewhere, as the original's dataset


def decode(contents: bytes, resolution: int, background: Background = Background.composite) -> NDArray[np.uint8]:
    """One encoded view to `[R, R, 3]` on white.

    Raises:
        OSError, ValueError, SyntaxError: it is no picture, or an absurdly large one.
    """
    with Image.open(io.BytesIO(contents), formats=["WEBP"]) as image:
        if max(image.size) > LARGEST_SIDE:
            raise ValueError(f"a picture of {image.width} × {image.height} pixels")
        rgba = np.asarray(image.convert("RGBA"), dtype=np.float32) / 255
    white = Image.fromarray(np.round(on_white(rgba, background) * 255).astype(np.uint8))
    if white.size != (resolution, resolution):
        white = white.resize((resolution, resolution), Image.Resampling.BICUBIC)  # PIL antialiases
    return np.array(white)


def on_white(rgba_HW4: NDArray[np.float32], background: Background) -> NDArray[np.float32]:
    """Straight-alpha colours in [0, 1] on a white background, `[H, W, 3]`."""
    rgb, alpha = rgba_HW4[..., :3], rgba_HW4[..., 3:]
    if background is Background.composite:
        return rgb * alpha + (1 - alpha)
    return np.where(alpha == 0, np.float32(1), rgb)
