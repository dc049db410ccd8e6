"""Write sampled views as media: a labelled contact sheet, MP4 and GIF animations, and a variance map."""

import io
from collections.abc import Sequence
from pathlib import Path

import av
import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from rendering.picture_grid import picture_grid

FRAMES_PER_SECOND = 10
MIN_SIDE_PX = 128  # smaller views are enlarged
GAP_PX, LABEL_PX, COLUMNS = 4, 18, 8


def contact_sheet(pictures: Sequence[Image.Image], labels: Sequence[str], columns: int = COLUMNS) -> Image.Image:
    """Return square pictures in rows, each with its label below."""
    side = max(MIN_SIDE_PX, *(picture.width for picture in pictures))
    large = [enlarged(picture, side) for picture in pictures]
    rows = [large[i : i + columns] for i in range(0, len(large), columns)]
    sheet = picture_grid(rows, (GAP_PX, LABEL_PX))
    draw = ImageDraw.Draw(sheet)
    for i, label in zip(range(len(large)), labels, strict=True):
        x, y = i % columns * (side + GAP_PX), i // columns * (side + LABEL_PX)
        draw.text((x + 4, y + side + 2), label, fill="#555")
    return sheet


def enlarged(picture: Image.Image, side: int) -> Image.Image:
    """Return a square picture at `side`² pixels."""
    return picture if picture.width == side else picture.resize((side, side), Image.Resampling.BICUBIC)


def write_mp4(path: Path, frames: Sequence[Image.Image]) -> None:
    """Write an H.264 film that browsers play."""
    side = max(MIN_SIDE_PX, frames[0].width)
    side += side % 2  # yuv420p halves both sides
    with av.open(path, "w", format="mp4", options={"movflags": "faststart"}) as film:
        stream = film.add_stream("libx264", rate=FRAMES_PER_SECOND, options={"crf": "18"})
        stream.width = stream.height = side
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            film.mux(stream.encode(av.VideoFrame.from_image(enlarged(frame, side))))
        film.mux(stream.encode())


def write_gif(path: Path, frames: Sequence[Image.Image]) -> None:
    """Write a GIF that loops forever, for programs that play no films."""
    side = max(MIN_SIDE_PX, frames[0].width)
    first, *others = [enlarged(frame, side).quantize(256, dither=Image.Dither.NONE) for frame in frames]
    first.save(path, save_all=True, append_images=others, duration=1000 // FRAMES_PER_SECOND, loop=0)


def png(picture: NDArray[np.uint8]) -> bytes:
    """Return the PNG file of a picture `[H, W, 3]`."""
    contents = io.BytesIO()
    Image.fromarray(picture).save(contents, format="PNG")
    return contents.getvalue()


def variance(samples_SHW3: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the variance `[H, W]` over samples `[S, H, W, 3]`, mean over channels, for colours in [0, 1].

    Figure 8 of the paper shows such differences.
    """
    return (samples_SHW3 / 255).var(axis=0).mean(axis=-1)


def variance_picture(variance_HW: NDArray[np.float64], highest: float) -> Image.Image:
    """Return a variance map as colours, from black at 0 to bright at `highest`."""
    colours = matplotlib.colormaps["inferno"](np.clip(variance_HW / max(highest, 1e-12), 0, 1))[..., :3]
    return Image.fromarray((colours * 255).round().astype(np.uint8))
