"""Other files that an asset refers to: inside its own folder or nowhere, and no larger than sense."""

import io
import re
import struct
import warnings
from pathlib import Path

from PIL import Image

from rendering.failure import RenderFailure

MAX_SIDE = 8192  # pixels
MAX_PIXELS = 1 << 29  # of all the pictures of an asset together: two gigabytes of 8-bit RGBA
PICTURES = ("PNG", "JPEG", "WEBP", "TGA", "BMP", "TIFF", "DDS", "GIF", "PSD", "JPEG2000")


def inside(reference: str, asset: Path, required: bool = True) -> Path:
    """The file that `asset` refers to, links followed.

    Raises:
        RenderFailure: `external` if it lies outside the asset's folder, `incomplete` if it is `required` and not there.
    """
    text = reference.strip().replace("\\", "/")
    if text.startswith(("/", "~")) or re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", text) or "\0" in text:
        raise RenderFailure("external", f"it refers to {reference[:200]!r}, which is not a path beside it")
    # Whoever links an asset into a folder means what the link points to: its neighbours there are its own too.
    folders = asset.parent.resolve(), asset.resolve().parent
    try:
        target = (asset.parent / text).resolve()
        there = target.is_file()
    except (OSError, ValueError, RuntimeError):  # a name too long, a link to itself
        raise RenderFailure("incomplete", f"it refers to {reference[:200]!r}, which cannot be opened") from None
    if not any(target.is_relative_to(folder) for folder in folders):
        raise RenderFailure("external", f"it refers to {reference[:200]!r}, which lies outside its folder")
    if required and not there:
        raise RenderFailure("incomplete", f"it refers to {reference[:200]!r}, which is not there")
    return target


class Pictures:
    """Counts the pixels that an asset's pictures declare. None is decoded."""

    def __init__(self) -> None:
        self.pixels = 0

    def add(self, picture: Path | bytes, name: str) -> None:
        """Raises:
        RenderFailure: `too_large`.
        """
        size = _size(picture)
        if size is None:
            return  # Blender will not know it either, and the importer names what it could not draw with
        self.pixels += size[0] * size[1]
        if max(size) > MAX_SIDE:
            raise RenderFailure("too_large", f"picture {name} has {size[0]} x {size[1]} pixels, {MAX_SIDE} a side go")
        if self.pixels > MAX_PIXELS:
            raise RenderFailure("too_large", f"its pictures have more than {MAX_PIXELS:,} pixels together")


def _size(picture: Path | bytes) -> tuple[int, int] | None:
    """Width and height as the header says, None if no header is known."""
    with open(picture, "rb") if isinstance(picture, Path) else io.BytesIO(picture) as file:
        start = file.read(1 << 16)
        if start.startswith(b"\x76\x2f\x31\x01"):  # OpenEXR
            window = re.search(rb"dataWindow\0box2i\0....(.{16})", start, re.DOTALL)
            left, top, right, bottom = struct.unpack("<4i", window[1]) if window else (0, 0, -1, -1)
            return right - left + 1, bottom - top + 1
        if size := re.match(rb"#\?.{0,4096}?-Y (\d{1,9}) \+X (\d{1,9})\n", start, re.DOTALL):  # Radiance
            return int(size[2]), int(size[1])
        file.seek(0)
        try:
            with warnings.catch_warnings(action="ignore"), Image.open(file, formats=PICTURES) as image:
                return image.size
        except Image.DecompressionBombError:
            return 1 << 30, 1 << 30
        except (OSError, ValueError, SyntaxError, EOFError, struct.error):
            return None
