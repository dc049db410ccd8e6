"""Resolve the files that an asset refers to, and limit the pixels of its textures."""

import io
import re
import struct
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote

from PIL import Image

from rendering.failure import RenderFailure

MAX_SIDE = 8192  # pixels of a texture
MAX_PIXELS = 1 << 29  # of all textures of an asset together: two gigabytes of 8-bit RGBA
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "TGA", "BMP", "TIFF", "DDS", "GIF", "PSD", "JPEG2000")
SEARCHED_FOLDERS = (
    "",
    "textures",
    "images",
    "{stem}.fbm",
    "../textures",
    "../images",
)  # of the referring file


def asset_folders(asset: Path, root: Path) -> tuple[Path, ...]:
    """Return the folders that `asset` may refer to, symbolic links resolved, outermost first.

    These are `root`, the target of every linked folder between `root` and the asset, and the folder of the asset's
    target if the asset is a link: a user who puts a link into the source folder includes the files at its target.
    """
    between = [folder for folder in asset.absolute().parents if folder.is_relative_to(root.absolute())]
    folders = [root, *reversed(between), asset.parent, asset.resolve().parent]
    return tuple(dict.fromkeys(folder.resolve() for folder in folders))


class References:
    """Find the files that an asset refers to, within `asset_folders` only.

    Args:
        asset: The file that is rendered.
        root: The folder of the source. Defaults to the folder of the asset.
        keep_reversed: Whether faces are kept that reverse another one; Blender then imports a copy of an OBJ.

    Attributes:
        resolved: For each file that was read, its references and the path that each resolves to.
        redirected: Whether any reference resolves to a different path, so that Blender has to import a copy
            (`rendering.asset_validation.redirect`).
    """

    def __init__(self, asset: Path, root: Path | None = None, keep_reversed: bool = False) -> None:
        self.asset = asset
        self.keep_reversed = keep_reversed
        self.folders = asset_folders(asset, root or asset.parent)
        self.resolved: dict[Path, dict[str, Path]] = {}
        self.redirected = False

    def find(self, reference: str, file: Path, required: bool = True) -> Path:
        """Return the path that `reference` in `file` resolves to, symbolic links resolved.

        Absolute paths, `file:` URLs and paths out of the allowed folders are never opened: they are often those of
        another machine. They resolve to the file of that name beside `file`, as do paths that do not exist.

        Raises:
            RenderFailure: `external` if the path leads outside and no such file lies beside `file`, `incomplete` if the
                file is `required` and does not exist.
        """
        text, absolute = _normalised(reference)
        target = None if absolute else self.inside(file.parent / text)
        self.redirected |= text != reference  # Blender does not support backslashes in every format
        if target is None or not target.is_file():
            local = self.beside(re.split("[/:]", text)[-1], file)
            self.redirected |= local is not None
            target = local or target
        if target is None:
            raise RenderFailure(
                "external", f"the file refers to {reference[:200]!r}, which lies outside the folder of the source"
            )
        if required and not target.is_file():
            raise RenderFailure("incomplete", f"the file refers to {reference[:200]!r}, which does not exist")
        self.resolved.setdefault(file, {})[reference] = target
        return target

    def inside(self, path: Path) -> Path | None:
        """Return `path` with symbolic links resolved, or None if it lies outside the allowed folders.

        Raises:
            RenderFailure: `incomplete` if the operating system cannot resolve the path.
        """
        try:
            target = path.resolve()
            target.is_file()
        except (OSError, ValueError, RuntimeError):  # such as a name that is too long, or a link to itself
            raise RenderFailure("incomplete", f"the file {path.name[:200]!r} cannot be opened") from None
        return target if any(target.is_relative_to(folder) for folder in self.folders) else None

    def beside(self, name: str, file: Path) -> Path | None:
        """Return the file called `name` beside `file` or in a folder for textures there, or None.

        The case of names is ignored if no exact match exists, as on the file systems of many authors.
        """
        for relative in SEARCHED_FOLDERS:
            folder = file.parent / relative.format(stem=self.asset.stem)
            if not name or self.inside(folder) is None or not folder.is_dir():
                continue
            names = [name, *sorted(p.name for p in folder.iterdir() if p.name.casefold() == name.casefold())]
            for candidate in names:
                target = self.inside(folder / candidate)
                if target and target.is_file():
                    return target
        return None


def _normalised(reference: str) -> tuple[str, bool]:
    """Return `reference` as a path with slashes, and whether it is absolute.

    Raises:
        RenderFailure: `external` if it is a network address, or not a path.
    """
    text = reference.strip()
    local = text.lower().startswith("file:")
    text = (unquote(text[5:]) if local else text).replace("\\", "/")
    if "\0" in text or re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", text):
        raise RenderFailure("external", f"the file refers to {reference[:200]!r}, which is not a path")
    return text, local or bool(re.match(r"/|~|[A-Za-z]:", text))


def link_all(targets: Iterable[Path], folder: Path) -> dict[Path, str]:
    """Make a symbolic link in `folder` to each of `targets`, and return the paths of the links relative to `folder`."""
    links = {target: f"{number}/{target.name}" for number, target in enumerate(sorted(set(targets)))}
    for target, link in links.items():
        (folder / link).parent.mkdir()
        (folder / link).symlink_to(target)
    return links


class Pictures:
    """Sum of the declared pixels of an asset's textures. None is decoded."""

    def __init__(self) -> None:
        self.pixels = 0

    def add(self, picture: Path | bytes, name: str) -> None:
        """Add a texture, a file or its bytes; `name` identifies it in errors.

        Raises:
            RenderFailure: `too_large`.
        """
        size = _size(picture)
        if size is None:
            return  # reported after the import if Blender cannot read it either
        self.pixels += size[0] * size[1]
        if max(size) > MAX_SIDE:
            raise RenderFailure(
                "too_large", f"texture {name} has {size[0]} x {size[1]} pixels; the limit is {MAX_SIDE} per side"
            )
        if self.pixels > MAX_PIXELS:
            raise RenderFailure("too_large", f"the textures have more than {MAX_PIXELS:,} pixels together")


def _size(picture: Path | bytes) -> tuple[int, int] | None:
    """Return width and height from the header, or None if its format is unknown or the file cannot be opened."""
    try:
        with open(picture, "rb") if isinstance(picture, Path) else io.BytesIO(picture) as file:
            return _header_size(file)
    except Image.DecompressionBombError:
        return 1 << 30, 1 << 30
    except Exception:  # Pillow's decoders raise many types for damaged headers
        return None


def _header_size(file: BinaryIO) -> tuple[int, int]:
    start = file.read(1 << 16)
    if start.startswith(b"\x76\x2f\x31\x01"):  # OpenEXR
        window = re.search(rb"dataWindow\0box2i\0....(.{16})", start, re.DOTALL)
        left, top, right, bottom = struct.unpack("<4i", window[1]) if window else (0, 0, -1, -1)
        return right - left + 1, bottom - top + 1
    if start.startswith(b"DDS ") and len(start) >= 20:  # Pillow supports only some of its pixel formats
        height, width = struct.unpack_from("<II", start, 12)
        return width, height
    if size := re.match(rb"#\?.{0,4096}?-Y (\d{1,9}) \+X (\d{1,9})\n", start, re.DOTALL):  # Radiance
        return int(size[2]), int(size[1])
    file.seek(0)
    with warnings.catch_warnings(action="ignore"), Image.open(file, formats=IMAGE_FORMATS) as image:
        return image.size
