"""A stranger's picture file to a square RGB picture on white, decoded in a guarded way."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from conf.options import UserError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
MOST_PIXELS = 64_000_000


def read_photograph(path: str | Path) -> Image.Image:
    """Upright, on white where it is transparent, padded with white to a square.

    Raises:
        UserError: it is missing, no picture, damaged, or too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise UserError(f"image: {path} has {image.width} × {image.height} pixels; scale it down first")
                picture: Image.Image = image
                if image.mode.startswith("I;16"):  # which PIL would clip to white
                    picture = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
                elif image.mode in ("I", "F"):
                    raise UserError(f"image: {path} has {image.mode} pixels; save it with 8 bits per channel")
                picture = ImageOps.exif_transpose(picture).convert("RGBA")
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"image: there is no picture file {path}") from None
    except UnidentifiedImageError:
        raise UserError(f"image: {path} is no picture; give a {', '.join(FORMATS)} file") from None
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise UserError(f"image: {path} is damaged: {error}") from error
    side = max(picture.size)
    canvas = Image.new("RGBA", (side, side), "white")
    canvas.alpha_composite(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return canvas.convert("RGB")
