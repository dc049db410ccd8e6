"""From an encoded view to the pixels that the model is given."""

import io
from enum import StrEnum

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

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
        white = on_white(image.convert("RGBA"), background)
    if white.size != (resolution, resolution):
        white = white.resize((resolution, resolution), Image.Resampling.BICUBIC)  # PIL antialiases
    return np.asarray(white)


def on_white(rgba: Image.Image, background: Background) -> Image.Image:
    """A picture with straight alpha on white, every value rounded once: Pillow's paste does it in whole numbers."""
    white = Image.new("RGB", rgba.size, "white")
    if box := rgba.getbbox():  # of what is not transparent, a small part of most views
        seen = rgba.crop(box)
        opaque = background is Background.original
        white.paste(seen, box, seen.getchannel("A").point([0] + 255 * [255]) if opaque else seen)
    return white


def as_floats(pictures_BCHW: Tensor) -> Tensor:
    """Pictures of bytes to [-1, 1], which floats are in already."""
    if pictures_BCHW.dtype is not torch.uint8:
        return pictures_BCHW
    return pictures_BCHW.to(torch.float32, memory_format=torch.contiguous_format) / 127.5 - 1
