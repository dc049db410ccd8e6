"""Lossless WebP images."""

from pathlib import Path
from typing import BinaryIO

from PIL import Image


def save_lossless(image: Image.Image, file: str | Path | BinaryIO) -> None:
    """Write `image` as a WebP with all values exact, including the colours of transparent pixels."""
    image.save(file, "WEBP", lossless=True, quality=50, method=2, exact=True)
