"""A stranger's picture file to an upright picture, decoded in a guarded way."""

import struct
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from conf.options import UserError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
MOST_PIXELS = 64_000_000


def read_photograph(path: str | Path) -> Image.Image:
    """Upright; RGBA with straight alpha where the file knows transparency, RGB elsewhere; the first of several frames.

    Raises:
        UserError: it is missing, no picture, damaged, or too large.
    """
    if not Path(path).is_file():  # nor a pipe, which one would wait for
        raise UserError(f"image: there is no picture file {path}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of PIL's, about what it reads all the same
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise UserError(f"image: {path} has {image.width} × {image.height} pixels; scale it down first")
                picture: Image.Image = image
                if image.mode.startswith("I;16"):  # which PIL would clip to white
                    picture = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
                elif image.mode in ("I", "F"):
                    raise UserError(f"image: {path} has {image.mode} pixels; save it with 8 bits per channel")
                picture = ImageOps.exif_transpose(picture)
                return picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    except UnidentifiedImageError:
        raise UserError(f"image: {path} is no picture; give a {', '.join(FORMATS)} file") from None
    except Image.DecompressionBombError:
        raise UserError(f"image: {path} has far too many pixels; scale it down first") from None
    except (OSError, ValueError, SyntaxError, EOFError, TypeError, KeyError, struct.error) as error:
        raise UserError(f"image: {path} is damaged: {error}") from error
