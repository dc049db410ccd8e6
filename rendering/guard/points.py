"""PLY and STL: the counts in their headers against the size of the file."""

import re
import struct
from pathlib import Path

from rendering.failure import RenderFailure
from rendering.guard.references import References

MAX_ELEMENTS = 100_000_000
MAX_HEADER = 1 << 16
BYTES = {
    **{"char": 1, "uchar": 1, "int8": 1, "uint8": 1, "short": 2, "ushort": 2, "int16": 2, "uint16": 2},
    **{"int": 4, "uint": 4, "int32": 4, "uint32": 4, "float": 4, "float32": 4, "double": 8, "float64": 8},
}


def check_ply(path: Path, references: References) -> None:
    with open(path, "rb") as file:
        start = file.read(MAX_HEADER)
    header, end, _ = start.partition(b"end_header")
    lines = header.decode("ascii", errors="replace").split("\n")
    if lines[0].strip() != "ply" or not end:
        raise ValueError("no PLY header")
    text = any(line.split()[:2] == ["format", "ascii"] for line in lines)
    elements: list[list[int]] = []  # count, bytes that one takes at least
    for words in filter(None, map(str.split, lines)):
        match words:
            case ["element", _, count]:
                elements.append([_count(count), 0])
            case ["property", "list", length, _, _]:
                elements[-1][1] += 2 if text else BYTES[length]
            case ["property", kind, _]:
                elements[-1][1] += 2 if text else BYTES[kind]
    _check(sum(count for count, _ in elements), sum(count * size for count, size in elements), path, len(header))


def check_stl(path: Path, references: References) -> None:
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(1024)
    if len(start) < 15:
        raise ValueError("too short for an STL")
    count = struct.unpack_from("<I", start, 80)[0] if len(start) >= 84 else 0
    # Some binary files start with "solid" as well: the size tells.
    if size == 84 + 50 * count or not re.match(rb"\s*solid", start):
        _check(count, 50 * count, path, 84)


def _check(count: int, needed: int, path: Path, header: int) -> None:
    if needed > (there := path.stat().st_size - header):
        raise ValueError(f"it declares {count:,} elements of {needed:,} bytes, and holds {max(there, 0):,}")
    if count > MAX_ELEMENTS:
        raise RenderFailure("too_large", f"it declares {count:,} elements, {MAX_ELEMENTS:,} go")


def _count(word: str) -> int:
    if not word.isdecimal():
        raise ValueError(f"{word!r} elements")
    return int(word)
