"""Pictures to look at: a labelled contact sheet, a film, and where several guesses differ."""

import math
from collections.abc import Sequence
from pathlib import Path

import av
import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

FRAMES_PER_SECOND = 10
LEAST_SIDE = 128  # pixels; smaller views are shown larger
GAP, LABEL, COLUMNS = 4, 18, 8


def contact_sheet(pictures: Sequence[Image.Image], labels: Sequence[str], columns: int = COLUMNS) -> Image.Image:
    """Square pictures in rows, each with its label below."""
    side = max(LEAST_SIDE, *(picture.width for picture in pictures))
    columns = min(columns, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    sheet = Image.new("RGB", (columns * (side + GAP), rows * (side + LABEL)), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        x, y = i % columns * (side + GAP), i // columns * (side + LABEL)
        sheet.paste(enlarged(picture, side), (x, y))
        draw.text((x + 4, y + side + 2), label, fill="#555")
    return sheet


def enlarged(picture: Image.Image, side: int) -> Image.Image:
    return picture if picture.width == side else picture.resize((side, side), Image.Resampling.BICUBIC)


def write_mp4(path: Path, frames: Sequence[Image.Image]) -> None:
    """H.264 that any browser plays."""
    side = _even(max(LEAST_SIDE, frames[0].width))
    with av.open(path, "w", format="mp4", options={"movflags": "faststart"}) as film:
        stream = film.add_stream("libx264", rate=FRAMES_PER_SECOND, options={"crf": "18"})
        stream.width = stream.height = side
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            film.mux(stream.encode(av.VideoFrame.from_image(enlarged(frame, side))))
        film.mux(stream.encode())


def write_gif(path: Path, frames: Sequence[Image.Image]) -> None:
    """The same for where no film plays, for ever."""
    side = max(LEAST_SIDE, frames[0].width)
    first, *others = [enlarged(frame, side).quantize(256, dither=Image.Dither.NONE) for frame in frames]
    first.save(path, save_all=True, append_images=others, duration=1000 // FRAMES_PER_SECOND, loop=0)


def variance(samples_SHW3: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Per-pixel variance `[H, W]` of several guesses `[S, H, W, 3]`, mean over the channels, colours in [0, 1]
    (figure 8 of the paper looks at such differences)."""
    return (samples_SHW3 / 255).var(axis=0).mean(axis=-1)


def variance_picture(variance_HW: NDArray[np.float64], most: float) -> Image.Image:
    """Black where all guesses agree, bright where the variance reaches `most`."""
    shown = matplotlib.colormaps["inferno"](np.clip(variance_HW / max(most, 1e-12), 0, 1))[..., :3]
    return Image.fromarray((shown * 255).round().astype(np.uint8))


def _even(side: int) -> int:
    return side + side % 2
