"""OBJ and its MTL files: what they refer to."""

import mmap
import re
from pathlib import Path

from rendering.failure import RenderFailure
from rendering.guard.references import Pictures, inside

# A backslash at the end of a line continues it.
NAMES = re.compile(rb"^[ \t]*(mtllib|usemtl)((?:\\\r?\n|[^\r\n])+)", re.MULTILINE)
NOT_FINITE = re.compile(rb"^v [^\n]*(?:nan|inf)", re.MULTILINE | re.IGNORECASE)
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
        if NOT_FINITE.search(data):
            raise RenderFailure("degenerate", "it has points that are not finite")
        names = {(found[1], _text(found[2])) for found in NAMES.finditer(data)}
    # Blender reads a library of the asset's own name as well, and needs no other then.
    own = path.with_suffix(".mtl")
    libraries = {inside(name, path, required=not own.is_file()) for kind, name in names if kind == b"mtllib"}
    if own.is_file():
        libraries.add(inside(own.name, path))
    used = {name for kind, name in names if kind == b"usemtl"}
    pictures = Pictures()
    for library in sorted(libraries):
        if library.is_file():
            _check_materials(library, used, pictures)


def _check_materials(library: Path, used: set[str], pictures: Pictures) -> None:
    if library.stat().st_size > MAX_MTL_BYTES:
        raise RenderFailure("too_large", f"{library.name} has more than {MAX_MTL_BYTES:,} bytes")
    seen, drawn = set(), False
    for line in map(str.strip, _text(library.read_bytes()).splitlines()):
        if line.startswith("newmtl"):
            drawn = line[6:].strip() in used
        elif drawn and (found := MAPS.match(line)):
            reference = found[2]
            while option := OPTIONS.match(reference):
                reference = reference[option.end() :]
            if reference and reference not in seen:
                seen.add(reference)
                # Not every map is drawn with: the importer names what is missed.
                picture = inside(reference.strip('"'), library, required=False)
                if picture.is_file():
                    pictures.add(picture, reference)


def _text(data: bytes) -> str:
    return re.sub(rb"\\\r?\n", b" ", data).decode(errors="surrogateescape").strip().strip('"')
