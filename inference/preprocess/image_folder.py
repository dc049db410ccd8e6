"""List the pictures of a folder, and name the folders that their views are written to."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from conf.options import UserError

SUFFIXES = (
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif",
    ".heic", ".heif", ".hif",
)  # fmt: skip
UNSUPPORTED = (
    ".svg", ".svgz", ".eps", ".psd", ".xcf", ".ico", ".icns", ".jxl", ".jp2", ".j2k", ".exr", ".hdr", ".dds", ".tga",
    ".ppm", ".pgm", ".pnm", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf",
)  # fmt: skip
INPUTS = "inputs.png"  # contact sheet of the prepared pictures, beside the folders of views
INPUTS_FOLDER = "inputs.png-views"  # the folder of views of a picture with that name
MAX_NAMES = 5  # in an error


def pictures_in(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the pictures of a folder, and the pictures in unsupported formats, both sorted.

    Hidden files, which include macOS's `._x.png`, and folders are left out.

    Raises:
        UserError: There is no picture that can be read.
    """
    files = sorted(path for path in folder.iterdir() if not path.name.startswith(".") and _is_file(path))
    pictures, unsupported = (
        [path for path in files if path.suffix.lower() in kinds] for kinds in (SUFFIXES, UNSUPPORTED)
    )
    if not pictures:
        names = ", ".join(path.name for path in unsupported[:MAX_NAMES])
        others = f" in a supported format, only {names}" if unsupported else ""
        raise UserError(f"image={folder}: there is no picture in this folder{others}; give {', '.join(SUFFIXES)} files")
    return pictures, unsupported


def view_folders(pictures: Sequence[Path], output: Path) -> dict[str, Path]:
    """Return the pictures of one folder by the name of the folder in `output` that their views are written to.

    The name is the picture's stem, or its full name if another picture has the same stem or has this stem as its name.
    A folder that an earlier run wrote keeps its picture when other pictures are added or removed.
    """
    stems = Counter(path.stem for path in pictures)
    taken = {INPUTS, INPUTS_FOLDER, *(path.name for path in pictures)}

    def name(path: Path) -> str:
        full = INPUTS_FOLDER if path.name == INPUTS else path.name
        if path.stem in taken or _source_of(output / full) == path.name:
            return full
        return path.stem if stems[path.stem] == 1 or _source_of(output / path.stem) == path.name else full

    return {name(path): path for path in pictures}


def _is_file(path: Path) -> bool:
    is_broken_link = path.is_symlink() and not path.exists()  # listed, so that it is reported
    return path.is_file() or is_broken_link


def _source_of(folder: Path) -> str | None:
    """Return the file name of the picture whose views a folder holds; None if it holds none."""
    try:
        return Path(json.loads((folder / "poses.json").read_text())["image"]).name
    except (OSError, ValueError, TypeError, KeyError):
        return None
