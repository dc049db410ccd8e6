"""PLY and STL: check the counts in their headers against the size of the file."""

import os
import re
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path

from rendering.asset_validation.references import Pictures, References
from rendering.failure import RenderFailure

MAX_ELEMENTS = 100_000_000
MAX_HEADER_BYTES = 1 << 16
TEXTURE = re.compile(r"comment\s+TextureFile\s+(\S.*)", re.IGNORECASE)
TYPE_BYTES = {
    **{"char": 1, "uchar": 1, "int8": 1, "uint8": 1, "short": 2, "ushort": 2, "int16": 2, "uint16": 2},
    **{"int": 4, "uint": 4, "int32": 4, "uint32": 4, "float": 4, "float32": 4, "double": 8, "float64": 8},
}


@dataclass(frozen=True)
class Header:
    """The header of a PLY.

    Attributes:
        text: Whether the data is text.
        size: Length of the header, bytes.
        pictures: Names of textures, as MeshLab writes them into comments.
        counts: Number of rows of each element.
        properties: For each element, the types of its properties; that of a list is `list` and the type of its length.
    """

    text: bool
    size: int
    pictures: tuple[str, ...]
    counts: dict[str, int]
    properties: dict[str, dict[str, str]]


def read_header(path: Path) -> Header:
    """Read the header of a PLY.

    Raises:
        ValueError: The file has none.
    """
    with open(path, "rb") as file:
        start = file.read(MAX_HEADER_BYTES)
    header, end, _ = start.partition(b"end_header")
    lines = [line.strip() for line in header.decode(errors="surrogateescape").split("\n")]
    if lines[0] != "ply" or not end:
        raise ValueError("the file has no PLY header")
    counts: dict[str, int] = {}
    properties: dict[str, dict[str, str]] = {}
    for words in filter(None, map(str.split, lines)):
        match words:
            case ["element", name, count]:
                if name in counts:
                    raise ValueError(f"two elements have the name {name!r}")
                counts[name], properties[name], element = _count(count), {}, name
            case ["property", "list", length, _, name]:
                properties[element][name] = f"list {length}"
            case ["property", kind, name]:
                properties[element][name] = kind
    text = any(line.split()[:2] == ["format", "ascii"] for line in lines)
    pictures = [match[1] for line in lines if (match := TEXTURE.match(line))]
    return Header(text, len(header), tuple(dict.fromkeys(pictures)), counts, properties)


def check_ply(path: Path, references: References) -> None:
    """Check the header of a PLY and find its textures.

    Raises:
        RenderFailure: `external` or `too_large`.
        ValueError: The header is not valid, or the file is shorter than it declares.
    """
    header = read_header(path)
    needed = sum(
        count
        * sum(2 if header.text else TYPE_BYTES[kind.removeprefix("list ")] for kind in header.properties[name].values())
        for name, count in header.counts.items()
    )
    _check_count(sum(header.counts.values()), needed, path, header.size)
    pictures = Pictures()
    for name in header.pictures:
        picture = references.find(name, path, required=False)  # not drawn without texture coordinates
        if picture.is_file():
            pictures.add(picture, name)


def check_stl(path: Path, references: References) -> None:
    """Check the number of triangles of an STL.

    Blender takes a binary STL with bytes after its triangles for text, and finds none. It gets a copy without them.

    Raises:
        RenderFailure: `too_large`.
        ValueError: The file is shorter than it declares.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(1024)
    if len(start) < 15:
        raise ValueError("the file is too short for an STL")
    count = _stl_count(start)
    longer = size > 84 + 50 * count
    # Some binary files also start with "solid", so the size decides, or a zero byte, which text has not.
    if size == 84 + 50 * count or not re.match(rb"\s*solid", start) or (longer and b"\0" in start):
        _check_count(count, 50 * count, path, 84)
        references.redirected = longer


def copy_stl(references: References, folder: Path) -> Path:
    """Write a binary STL into `folder` without the bytes after its triangles, and return its path."""
    copy = folder / references.asset.name
    shutil.copyfile(references.asset, copy)
    with open(copy, "rb") as file:
        count = _stl_count(file.read(84))
    os.truncate(copy, 84 + 50 * count)
    return copy


def _stl_count(start: bytes) -> int:
    """Return the number of triangles that the first bytes of a binary STL declare."""
    return int(struct.unpack_from("<I", start, 80)[0]) if len(start) >= 84 else 0


def _check_count(count: int, needed: int, path: Path, header: int) -> None:
    if needed > (available := path.stat().st_size - header):
        raise ValueError(f"{count:,} elements need {needed:,} bytes; the file has {max(available, 0):,}")
    if count > MAX_ELEMENTS:
        raise RenderFailure("too_large", f"the file declares {count:,} elements; the limit is {MAX_ELEMENTS:,}")


def _count(word: str) -> int:
    if not word.isdecimal():
        raise ValueError(f"{word!r} is not a number of elements")
    return int(word)
