"""OBJ and its MTL files: what they refer to."""

import mmap
import re
from pathlib import Path

from rendering.failure import RenderFailure
from rendering.guard.references import Pictures, inside

# A backslash at the end of a line continues it.
LIBRARY = re.compile(rb"^[ \t]*mtllib((?:\\\r?\n|[^\r\n])+)", re.MULTILINE)
MAPS = re.compile(r"(map_\w+|bump|norm|disp|decal|refl)\s+(.*)", re.IGNORECASE)
OPTIONS = re.compile(
    r"-(?:(?:o|s|t)(?:\s+[-+.\deE]+){1,3}|mm(?:\s+[-+.\deE]+){2}|(?:bm|boost|texres)\s+[-+.\deE]+|\w+\s+\w+)\s+"
)
MAX_MTL_BYTES = 64 << 20


def check(path: Path) -> None:
    if not path.stat().st_size:
        raise ValueError("an empty file")
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if b"\0" in data[: 1 << 16]:
            raise ValueError("binary data where text belongs")
        libraries = {_text(found[1]) for found in LIBRARY.finditer(data)}
    pictures = Pictures()
    for library in sorted(libraries):
        _check_materials(inside(library, path), path, pictures)


def _check_materials(materials: Path, path: Path, pictures: Pictures) -> None:
    if materials.stat().st_size > MAX_MTL_BYTES:
        raise RenderFailure("too_large", f"{materials.name} has more than {MAX_MTL_BYTES:,} bytes")
    seen = set()
    for line in _text(materials.read_bytes()).splitlines():
        if found := MAPS.match(line.strip()):
            reference = found[2]
            while option := OPTIONS.match(reference):
                reference = reference[option.end() :]
            if reference and reference not in seen:
                seen.add(reference)
                pictures.add(inside(reference.strip('"'), materials), reference)


def _text(data: bytes) -> str:
    return re.sub(rb"\\\r?\n", b" ", data).decode(errors="surrogateescape").strip().strip('"')
