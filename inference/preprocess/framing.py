"""Prepare a photograph to look like a training render: one object on white, centred, at their mean size."""

import math
from dataclasses import dataclass

from PIL import Image

from inference.config import check_fill
from inference.preprocess.background import OPAQUE_ALPHA, remove_background
from inference.preprocess.photograph import Picture, load_photograph
from training.model.picture import Background, on_white

# The longer side of the object's bounding box in training renders, as a share of the frame: mean over 12 views of 18
# scans as `rendering` renders them (docs/log.md). A unit cube's side facing a camera at the mean radius covers 0.59.
TRAINING_FILL = 0.56
FILTER_RADIUS_PX = 2  # of the bicubic filter, in pixels of the coarser grid


@dataclass(frozen=True)
class Prepared:
    """A prepared picture.

    Attributes:
        image: The input of the model: square, RGB, on white.
        cutout: The object without background, RGBA, at the resolution of the picture.
    """

    image: Image.Image
    cutout: Image.Image


def prepare(picture: Picture, cutout: str = "auto", fill: float | None = None, resolution: int = 256) -> Prepared:
    """Remove the background of a picture and frame the object as in training, as `inference.sample` does.

    Args:
        picture: A path, a PIL image, or an array of uint8 or uint16, `[H, W]`, `[H, W, 3]` or `[H, W, 4]`.
        cutout: How the background is removed, as in `inference.preprocess.remove_background`.
        fill: The share of the frame's side that the longer side of the object's bounding box covers; None: as in
            training. With 0, and where nothing separates object and background (`cutout="none"`), the whole picture is
            kept and padded to a square. `cutout="none", fill=0` keeps the pixels of a square picture on white.
        resolution: Pixels per side of the result, `model.resolution` of the checkpoint.

    Raises:
        PictureError: It is not a picture that can be read, it is blank, or no object is found in it.
        NoSegmenter: The segmentation model cannot be downloaded, read or run.
        UserError: `fill` is out of range.
    """
    check_fill(fill)
    cut = remove_background(load_photograph(picture), cutout)
    opaque = cut.getchannel("A").point([0] * OPAQUE_ALPHA + [255] * (256 - OPAQUE_ALPHA))
    if fill is None:
        fill = TRAINING_FILL if opaque.getextrema() == (0, 255) else 0
    left, top, right, bottom = (opaque.getbbox() if fill else None) or (0, 0, *cut.size)
    side = max(right - left, bottom - top) / (fill or 1)
    image = framed(cut, ((left + right) / 2, (top + bottom) / 2), side, resolution)
    return Prepared(image, cut)


def framed(picture: Image.Image, centre: tuple[float, float], side: float, resolution: int) -> Image.Image:
    """Return the square of `side` pixels around a point of an RGBA picture, on white, at `resolution`² pixels.

    The part that the picture covers is resampled once, by the filter of training. It is composited on white before,
    which equals filtering premultiplied colours: transparent pixels do not change the colours of others.
    """
    scale = side / resolution  # pixels of the picture per pixel of the frame
    margin = FILTER_RADIUS_PX * max(1, 1 / scale) + 1
    spans = []  # along x and y: start of the frame in the picture, and range of the frame's pixels to resample
    for middle, length in zip(centre, picture.size, strict=True):
        start = middle - side / 2
        first = max(0, math.floor(-start / scale - margin))
        last = min(resolution, math.ceil((length - start) / scale + margin))
        spans.append((start, first, last))
    (x, x0, x1), (y, y0, y1) = spans
    source = (x + x0 * scale, y + y0 * scale, x + x1 * scale, y + y1 * scale)
    left, top = math.floor(source[0]), math.floor(source[1])
    crop = picture.crop((left, top, math.ceil(source[2]), math.ceil(source[3])))
    box = (source[0] - left, source[1] - top, source[2] - left, source[3] - top)
    resampled = on_white(crop, Background.composite).resize((x1 - x0, y1 - y0), Image.Resampling.BICUBIC, box)
    frame = Image.new("RGB", (resolution, resolution), "white")
    frame.paste(resampled, (x0, y0))
    return frame
