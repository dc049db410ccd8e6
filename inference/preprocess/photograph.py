"""Decode an untrusted picture file, a PIL image or an array to an upright picture of 8 bits per channel."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from conf.options import UserError, first_line

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")  # and HEIF where pillow-heif is installed
MAX_PIXELS = 64_000_000
RGB_MODES = {
    "1",
    "L",
    "LA",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBa",
    "RGBX",
    "CMYK",
    "YCbCr",
    "HSV",
}  # of Pillow, convertible to RGB
UNSCALED_MODES = {"I": "32-bit integers", "F": "32-bit floats"}  # their range of values is unknown
BITS_PER_SAMPLE, PHOTOMETRIC, MIN_IS_WHITE = 258, 262, 0  # TIFF tags and a value of the second

Picture = str | os.PathLike[str] | Image.Image | NDArray[Any]


class PictureError(UserError):
    """A picture cannot be used.

    Attributes:
        reason: The message without the option and the path.
    """

    def __init__(self, reason: str, path: str | os.PathLike[str] | None = None):
        super().__init__(f"image: the picture {reason}" if path is None else f"image={path}: {reason}")
        self.reason = reason


def load_photograph(picture: Picture) -> Image.Image:
    """Return a picture upright, as 8-bit RGB, or as RGBA with straight alpha if it has transparency.

    Args:
        picture: The path of a file (its first frame is read), a PIL image (its current frame), or an array of uint8 or
            uint16, `[H, W]`, `[H, W, 3]` or `[H, W, 4]`.

    Raises:
        PictureError: It is missing, not a picture, damaged, too large, or its pixel format is not supported.
    """
    if isinstance(picture, Image.Image):
        with _decoding():
            return _upright(picture)
    if isinstance(picture, np.ndarray):
        return _from_array(picture)
    if isinstance(picture, (str, os.PathLike)):
        return read_photograph(picture)
    raise PictureError(f"is a {type(picture).__name__}; give a path, a PIL image or a NumPy array")


def read_photograph(path: str | os.PathLike[str]) -> Image.Image:
    """Read the first frame of a picture file as `load_photograph` does.

    Raises:
        PictureError: As `load_photograph`.
    """
    with _decoding(path):
        if not Path(path).is_file():  # a named pipe would block
            raise PictureError("there is no such picture file", path)
        with Image.open(path, formats=_formats()) as image:
            return _upright(image, path)


@contextmanager
def _decoding(path: str | os.PathLike[str] | None = None) -> Iterator[None]:
    """Convert the errors of Pillow's decoders, which have no common class, to `PictureError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about files that Pillow can read
            yield
    except PictureError:
        raise
    except UnidentifiedImageError:
        assert path is not None
        raise PictureError(_unidentified(Path(path)), path) from None
    except Image.DecompressionBombError:
        raise PictureError("has too many pixels; scale it down", path) from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno:  # of the operating system, not of a decoder
            raise PictureError(f"cannot be read: {(error.strerror or str(error)).lower()}", path) from error
        raise PictureError(f"is damaged ({first_line(error)}); save it again", path) from error


def _formats() -> tuple[str, ...]:
    """Return the formats that Pillow can read with the packages installed."""
    try:
        import pillow_heif
    except ImportError:
        return FORMATS
    pillow_heif.register_heif_opener()
    return (*FORMATS, "HEIF")


def _unidentified(path: Path) -> str:
    """Return why Pillow cannot identify a file, and what to do."""
    with path.open("rb") as file:
        start = file.read(1024)
    if start[4:8] == b"ftyp":
        return "is a HEIC or AVIF picture that Pillow cannot read here; pip install pillow-heif, or save it as JPEG"
    if b"<svg" in start or path.suffix.lower() in (".svg", ".svgz"):
        return "is an SVG drawing, which is not supported; export it as PNG"
    return f"is not a picture in a supported format ({', '.join(FORMATS)}, 8 or 16 bits); save it as PNG"


def _upright(image: Image.Image, path: str | os.PathLike[str] | None = None) -> Image.Image:
    if image.width * image.height > MAX_PIXELS:
        raise PictureError(f"has {image.width} × {image.height} pixels; scale it to at most {MAX_PIXELS:,}", path)
    _load(image)
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):  # Pillow would clip it to white
        bits = max(tags.get(BITS_PER_SAMPLE, (16,)))
        upright = _grey(upright, 2**bits - 1, tags.get(PHOTOMETRIC) == MIN_IS_WHITE)
    if upright.mode not in RGB_MODES:
        kind = UNSCALED_MODES.get(upright.mode, f"mode {upright.mode}")
        raise PictureError(f"has pixels of {kind}; save it as RGB or grey with 8 or 16 bits", path)
    key = upright.info.get("transparency")
    if isinstance(key, tuple) and max(key) > 255:  # of a 16-bit PNG, whose pixels Pillow reads as 8 bits
        upright.info["transparency"] = tuple(value >> 8 for value in key)
    picture = upright.convert("RGBA" if upright.has_transparency_data else "RGB")
    picture.info.clear()  # or the orientation would be applied again
    return picture


def _load(image: Image.Image) -> None:
    """Load the pixels without memory mapping: Pillow maps an uncompressed TIFF with the rotated sides."""
    name = getattr(image, "filename", "")
    if isinstance(image, ImageFile.ImageFile):
        image.filename = ""
    try:
        image.load()
    finally:
        if isinstance(image, ImageFile.ImageFile):
            image.filename = name


def _grey(image: Image.Image, largest: int, inverted: bool) -> Image.Image:
    """Return 16-bit grey as 8 bits, with alpha if one value stands for transparency."""
    values = np.asarray(image)
    grey = Image.fromarray(_eight_bits(largest - np.minimum(values, largest) if inverted else values, largest))
    if isinstance(image.info.get("transparency"), int):
        grey.putalpha(Image.fromarray((values != image.info["transparency"]).astype(np.uint8) * 255))
    return grey


def _eight_bits(values: NDArray[Any], largest: int) -> NDArray[np.uint8]:
    return ((values.astype(np.uint32) * 255 + largest // 2) // largest).clip(0, 255).astype(np.uint8)


def _from_array(values: NDArray[Any]) -> Image.Image:
    grey_or_colour = values.ndim == 2 or (values.ndim == 3 and values.shape[2] in (3, 4))
    if values.dtype.name not in ("uint8", "uint16") or not grey_or_colour or values.size == 0:
        raise PictureError(
            f"is an array of {values.dtype} {list(values.shape)}; give uint8 or uint16, [H, W], [H, W, 3] or [H, W, 4]"
        )
    if values.shape[0] * values.shape[1] > MAX_PIXELS:
        raise PictureError(f"has {values.shape[1]} × {values.shape[0]} pixels; scale it to at most {MAX_PIXELS:,}")
    picture = Image.fromarray(_eight_bits(values, 65535) if values.dtype == np.uint16 else values)
    return picture if picture.mode == "RGBA" else picture.convert("RGB")
