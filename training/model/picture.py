"""Decode view images to the pixels that the model takes."""

import io

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from training.model.config import Background

MAX_SIDE_PX = 4096  # a larger image is treated as damaged, before it fills the memory


def decode(contents: bytes, resolution: int, background: Background = Background.composite) -> NDArray[np.uint8]:
    """Return the pixels `[R, R, 3]` of an encoded view on white.

    Args:
        contents: WebP file.
        resolution: Side R in pixels.
        background: Method of compositing.

    Raises:
        OSError, ValueError, SyntaxError: `contents` is not a WebP image, or one larger than `MAX_SIDE_PX`.
    """
    with Image.open(io.BytesIO(contents), formats=["WEBP"]) as image:
        if max(image.size) > MAX_SIDE_PX:
            raise ValueError(f"an image of {image.width} × {image.height} pixels")
        white = on_white(image.convert("RGBA"), background)
    if white.size != (resolution, resolution):
        white = white.resize((resolution, resolution), Image.Resampling.BICUBIC)  # PIL antialiases
    return np.asarray(white)


def on_white(rgba: Image.Image, background: Background) -> Image.Image:
    """Return an image with straight alpha composited on white; Pillow's paste rounds every value once."""
    white = Image.new("RGB", rgba.size, "white")
    if box := rgba.getbbox():  # the part that is not transparent, a small one in most views
        visible = rgba.crop(box)
        opaque = background is Background.original
        white.paste(visible, box, visible.getchannel("A").point([0] + 255 * [255]) if opaque else visible)
    return white


def as_floats(pictures_BCHW: Tensor) -> Tensor:
    """Return images in [-1, 1]: bytes are converted, floats returned as they are."""
    if pictures_BCHW.dtype is not torch.uint8:
        return pictures_BCHW
    return pictures_BCHW.to(torch.float32, memory_format=torch.contiguous_format) / 127.5 - 1
