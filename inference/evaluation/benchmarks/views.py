"""Define the views of an object as a benchmark reads them, and decode its pictures."""

import io
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from conf.options import UserError, first_line
from inference.evaluation.benchmarks.benchmark import Benchmark
from rendering.cameras import Array
from training.model.picture import MAX_SIDE_PX, on_white


@dataclass(frozen=True)
class ObjectViews:
    """The views of an object.

    Attributes:
        uid: Key of the object.
        pictures: Encoded views, WebP or PNG with straight alpha; `decode_view` decodes them.
        cameras: Extrinsics, world→camera `[V, 3, 4]`; the world is z up, the object centred, its longest side 1.
    """

    uid: str
    pictures: tuple[bytes, ...]
    cameras: Array


@dataclass(frozen=True)
class ViewSource:
    """The views of a folder, in one of the layouts of `open_views`.

    Attributes:
        folder: The folder or URL.
        layout: Display name of the layout.
        uids: The objects, in the order of their names.
        listing: Hash that changes when files of the views do.
        read: Yields the views of some objects, in the order of the folder. Raises `UserError` if an object is damaged.
    """

    folder: str
    layout: str
    uids: tuple[str, ...]
    listing: str
    read: Callable[[Collection[str]], Iterator[ObjectViews]]


class DamagedViews(UserError):
    """The views of an object cannot be used.

    Args:
        folder: Folder of the views.
        uid: The object.
        reason: What is wrong.
        option: Option that names the folder.
    """

    def __init__(self, folder: str, uid: str, reason: str, option: str = "views") -> None:
        super().__init__(folder, uid, reason, option)  # all of them, so that the error can be pickled
        self.folder, self.uid, self.reason, self.option = folder, uid, reason, option

    def __str__(self) -> str:
        return f"{self.option}={self.folder}: object {self.uid}: {self.reason}; repair or remove it"


def decode_view(contents: bytes, benchmark: Benchmark, resolution: int) -> NDArray[np.uint8]:
    """Return the pixels `[R, R, 3]` of an encoded view, on white and reduced as a benchmark prescribes.

    Args:
        contents: WebP or PNG file.
        benchmark: Benchmark with the rule for the background and the filter.
        resolution: Side R, pixels; smaller views are enlarged.

    Raises:
        OSError, ValueError, SyntaxError: `contents` is not a square WebP or PNG image of at most `MAX_SIDE_PX`.
    """
    white = on_white(_decoded(contents).convert("RGBA"), benchmark.background)
    if white.size != (resolution, resolution):
        white = white.resize((resolution, resolution), Image.Resampling[benchmark.resize.upper()])
    return np.asarray(white)


def require_decodable(folder: str, uid: str, view: int, contents: bytes) -> None:
    """Raise `DamagedViews` unless `decode_view` can decode view `view` of an object in a folder of views."""
    try:
        _decoded(contents)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DamagedViews(folder, uid, f"view {view:03d} is damaged ({first_line(error)})") from None


def _decoded(contents: bytes) -> Image.Image:
    with Image.open(io.BytesIO(contents), formats=["WEBP", "PNG"]) as image:
        require_view(image)
        image.load()
        return image


def require_view(image: ImageFile.ImageFile) -> None:
    """Raise `ValueError` unless an opened image is square, of at most `MAX_SIDE_PX`, and of 8 bits per channel."""
    if image.width != image.height or image.width > MAX_SIDE_PX:
        raise ValueError(f"a picture of {image.width} × {image.height} pixels, not square or above {MAX_SIDE_PX}")
    # Pillow opens PNG files of 16 bits in colour as RGB or RGBA and drops the low 8 bits.
    if image.mode not in ("RGB", "RGBA", "P", "L", "LA") or (image.tile and ";16" in str(image.tile[0][3])):
        raise ValueError(f"a picture of mode {image.mode}, not of 8 bits per channel")
