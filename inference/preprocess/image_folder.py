"""The pictures of a folder, and the folders that their views are written to."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from conf.options import UserError

SUFFIXES = (
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif",
    ".heic", ".heif", ".hif",
)  # fmt: skip
NOT_READ = (
    ".svg", ".svgz", ".eps", ".psd", ".xcf", ".ico", ".icns", ".jxl", ".jp2", ".j2k", ".exr", ".hdr", ".dds", ".tga",
    ".ppm", ".pgm", ".pnm", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf",
)  # fmt: skip
INPUTS = "inputs.png"  # the sheet of the prepared pictures, beside the folders
OF_INPUTS = "inputs.png-views"  # the folder of a picture of that name
SHOWN = 5  # names in an error


def pictures_in(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the pictures of a folder, and those of kinds that are not read, both sorted.

    Hidden files, which include macOS's `._x.png`, and folders are left out.

    Raises:
        UserError: There is no picture that can be read.
    """
    files = sorted(path for path in folder.iterdir() if not path.name.startswith(".") and _is_file(path))
    pictures, not_read = ([path for path in files if path.suffix.lower() in kinds] for kinds in (SUFFIXES, NOT_READ))
    if not pictures:
        names = ", ".join(path.name for path in not_read[:SHOWN])
        there = f" but {names}, which {'is' if len(not_read) == 1 else 'are'} not read" if not_read else ""
        raise UserError(f"image={folder}: there is no picture in this folder{there}; give {', '.join(SUFFIXES)} files")
    return pictures, not_read


def view_folders(pictures: Sequence[Path], output: Path) -> dict[str, Path]:
    """Return the pictures of one folder by the names of the folders in `output` that their views go to.

    The name is the file's without its suffix, or all of it where another picture has the same stem or has this stem as
    its name. A folder that an earlier run wrote stays with its picture when others are added or removed.
    """
    stems, taken = Counter(path.stem for path in pictures), {INPUTS, OF_INPUTS, *(path.name for path in pictures)}

    def name(path: Path) -> str:
        whole = OF_INPUTS if path.name == INPUTS else path.name
        if path.stem in taken or _drawn_from(output / whole) == path.name:
            return whole
        return path.stem if stems[path.stem] == 1 or _drawn_from(output / path.stem) == path.name else whole

    return {name(path): path for path in pictures}


def _is_file(path: Path) -> bool:
    return path.is_file() or (path.is_symlink() and not path.exists())  # a broken link is reported, not left out


def _drawn_from(folder: Path) -> str | None:
    """Return the file name of the picture whose views a folder holds."""
    try:
        return Path(json.loads((folder / "poses.json").read_text())["image"]).name
    except (OSError, ValueError, TypeError, KeyError):
        return None
