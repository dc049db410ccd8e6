"""How a picture is stored: WebP with all four channels as they are."""

from pathlib import Path
from typing import BinaryIO

from PIL import Image


def save_lossless(image: Image.Image, file: str | Path | BinaryIO) -> None:
    """Write `image` as a WebP that keeps every value, the colour of transparent pixels too."""
    image.save(file, "WEBP", lossless=True, quality=50, method=2, exact=True)
