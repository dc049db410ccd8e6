"""Decode a picture (untrusted file, PIL image or array) to an upright one of 8 bits per channel."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from conf.options import UserError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")  # and HEIF where pillow-heif is installed
MAX_PIXELS = 64_000_000
MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"}  # convertible to RGB
LONG = {"I": "32-bit integers", "F": "32-bit floats"}  # modes whose range of values is unknown
BITS_PER_SAMPLE, PHOTOMETRIC, MIN_IS_WHITE = 258, 262, 0  # TIFF tags and a value of the second

Picture = str | os.PathLike[str] | Image.Image | NDArray[Any]


class PictureError(UserError):
    """A picture cannot be used. `reason` is the sentence without the option and the path."""

    def __init__(self, reason: str, path: str | os.PathLike[str] | None = None):
        super().__init__(f"image: the picture {reason}" if path is None else f"image={path}: {reason}")
        self.reason = reason


def load_photograph(picture: Picture) -> Image.Image:
    """Return a picture upright, as 8-bit RGB, or RGBA with straight alpha where it has transparency.

    Args:
        picture: The path of a file (its first frame is read), a PIL image (its current frame), or an array of uint8 or
            uint16, `[H, W]`, `[H, W, 3]` or `[H, W, 4]`.

    Raises:
        PictureError: It is missing, not a picture, damaged, too large, or its pixels are of a kind that is not read.
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
    """Read the first frame of a picture file as `photograph` does.

    Raises:
        PictureError: As `photograph`.
    """
    if not Path(path).is_file():  # a named pipe would block
        raise PictureError("there is no such picture file", path)
    with _decoding(path), Image.open(path, formats=_formats()) as image:
        return _upright(image, path)


@contextmanager
def _decoding(path: str | os.PathLike[str] | None = None) -> Iterator[None]:
    """Turn the failures of Pillow's decoders, which have no common class, into a `PictureError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's warnings about files that it reads nevertheless
            yield
    except PictureError:
        raise
    except UnidentifiedImageError:
        assert path is not None
        raise PictureError(_unidentified(Path(path)), path) from None
    except Image.DecompressionBombError:
        raise PictureError("has too many pixels; scale it down", path) from None
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise PictureError(f"is damaged ({reason}); save it again", path) from error


def _formats() -> tuple[str, ...]:
    """Return the formats that Pillow reads here."""
    try:
        import pillow_heif
    except ImportError:
        return FORMATS
    pillow_heif.register_heif_opener()
    return (*FORMATS, "HEIF")


def _unidentified(path: Path) -> str:
    """Return why Pillow does not know a file, and what to do."""
    with path.open("rb") as file:
        start = file.read(1024)
    if start[4:8] == b"ftyp":
        return "is a HEIC or AVIF picture that Pillow cannot read here; pip install pillow-heif, or save it as JPEG"
    if b"<svg" in start or path.suffix.lower() in (".svg", ".svgz"):
        return "is an SVG drawing, which is not read; export it as PNG"
    return f"is not a picture of a kind that is read ({', '.join(FORMATS)}, 8 or 16 bits); save it as PNG"


def _upright(image: Image.Image, path: str | os.PathLike[str] | None = None) -> Image.Image:
    if image.width * image.height > MAX_PIXELS:
        raise PictureError(f"has {image.width} × {image.height} pixels; scale it to at most {MAX_PIXELS:,}", path)
    _load(image)
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    turned = ImageOps.exif_transpose(image)
    if turned.mode.startswith("I;16"):  # Pillow would clip it to white
        bits = max(tags.get(BITS_PER_SAMPLE, (16,)))
        turned = _grey(turned, 2**bits - 1, tags.get(PHOTOMETRIC) == MIN_IS_WHITE)
    if turned.mode not in MODES:
        kind = LONG.get(turned.mode, f"mode {turned.mode}")
        raise PictureError(f"has pixels of {kind}; save it as RGB or grey with 8 or 16 bits", path)
    key = turned.info.get("transparency")
    if isinstance(key, tuple) and max(key) > 255:  # of a PNG with 16 bits, whose pixels Pillow reads as 8
        turned.info["transparency"] = tuple(value >> 8 for value in key)
    picture = turned.convert("RGBA" if turned.has_transparency_data else "RGB")
    picture.info.clear()  # no orientation remains to be applied again
    return picture


def _load(image: Image.Image) -> None:
    """Load the pixels without memory mapping: Pillow maps an uncompressed TIFF with the sides of the turned picture."""
    name = getattr(image, "filename", "")
    if isinstance(image, ImageFile.ImageFile):
        image.filename = ""
    try:
        image.load()
    finally:
        if isinstance(image, ImageFile.ImageFile):
            image.filename = name


def _grey(image: Image.Image, largest: int, inverted: bool) -> Image.Image:
    """Return 16-bit grey as 8 bits, with alpha where one value stands for transparency."""
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
