"""OBJ and its MTL files: what they refer to."""

import mmap
import re
import shutil
from pathlib import Path

from rendering.asset_validation.obj_faces import has_reversed, split_reversed
from rendering.asset_validation.references import Pictures, References, link_all
from rendering.failure import RenderFailure

MARK = "\ufeff".encode()  # a byte order mark, which hides the first line from Blender
# A backslash at the end of a line continues it.
NAMES = re.compile(rb"^(?:\xef\xbb\xbf)?[ \t]*(mtllib|usemtl)((?:\\\r?\n|[^\r\n])+)", re.MULTILINE)
WORDS = (b"nan", b"NaN", b"NAN", b"inf", b"Inf", b"INF")  # to look for them is faster than the expression
NOT_FINITE = re.compile(rb"^(?:\xef\xbb\xbf)?v [^\n]*(?:nan|inf)", re.MULTILINE | re.IGNORECASE)
MAPS = re.compile(r"(map_\w+|bump|norm|disp|decal|refl)\s+(.*)", re.IGNORECASE)
OPTIONS = re.compile(
    r"-(?:(?:o|s|t)(?:\s+[-+.\deE]+){1,3}|mm(?:\s+[-+.\deE]+){2}|(?:bm|boost|texres)\s+[-+.\deE]+|\w+\s+\w+)\s+"
)
MAX_MTL_BYTES = 64 << 20


def check(path: Path, references: References) -> None:
    if not path.stat().st_size:
        raise ValueError("an empty file")
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if b"\0" in data[: 1 << 16]:
            raise ValueError("binary data where text belongs")
        if any(data.find(word) >= 0 for word in WORDS) and NOT_FINITE.search(data):
            raise RenderFailure("degenerate", "it has points that are not finite")
        names = {(found[1], _text(found[2])) for found in NAMES.finditer(data)}
        marked = data[:3] == MARK
    # Blender reads a library of the asset's own name as well, and needs no other then.
    own = path.with_suffix(".mtl")
    for name in sorted(name for kind, name in names if kind == b"mtllib"):
        references.find(name, path, required=not own.is_file())
    if own.is_file():
        references.find(own.name, path)
    used = {name for kind, name in names if kind == b"usemtl"}
    if not used and (first := _first_material(references)):
        used = {first}
        references.redirected = True  # to a copy that uses it
    pictures = Pictures()
    for library in _libraries(references):
        marked |= library.read_bytes()[:3] == MARK
        _check_materials(library, used, pictures, references)
    references.redirected |= marked or (references.keep_reversed and len(used) > 1 and has_reversed(path.read_bytes()))


def copy(references: References, folder: Path) -> Path:
    """Write the materials into `folder`, with their pictures linked beside them, and return the asset's path there.

    The libraries become one with the name of the asset, which Blender reads without being asked to. An asset without
    `usemtl` gets the first material. The asset is a link, unless its text changes.
    """
    asset = references.asset
    # No `..` in the name of a library can leave `folder`: the check refuses those that leave the source.
    place = folder.joinpath(*["_"] * len(asset.parts))
    place.mkdir(parents=True)
    links = link_all((target for found in references.found.values() for target in found.values()), place)
    with open(place / f"{asset.stem}.mtl", "w", encoding="utf-8", errors="surrogateescape") as materials:
        for library in _libraries(references):
            found = references.found.get(library, {})
            for line in _text(library.read_bytes()).splitlines():
                options, reference = _map(line)
                if not reference:
                    materials.write(f"{line}\n")
                elif reference in found:
                    materials.write(f"{options}{links[found[reference]]}\n")
    with open(asset, "rb") as source, mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as data:
        marked = data[:3] == MARK
        used = {found[2] for found in NAMES.finditer(data) if found[1] == b"usemtl"}
    first = "" if used else _first_material(references)
    split = references.keep_reversed and len(used) > 1
    if not marked and not first and not split:
        (place / asset.name).symlink_to(asset.absolute())
        return place / asset.name
    with open(asset, "rb") as source, open(place / asset.name, "wb") as target:
        source.seek(len(MARK) if marked else 0)
        if first:
            target.write(f"usemtl {first}\n".encode(errors="surrogateescape"))
        if split:
            target.writelines(split_reversed(source))
        else:
            shutil.copyfileobj(source, target)
    return place / asset.name


def _first_material(references: References) -> str:
    """Return the name of the first material in the libraries, or an empty string."""
    for library in _libraries(references):
        for line in _text(library.read_bytes()).splitlines():
            if line.strip().startswith("newmtl"):
                return line.strip()[6:].strip()
    return ""


def _libraries(references: References) -> list[Path]:
    """Return the material libraries of the asset that exist."""
    return sorted({file for file in references.found.get(references.asset, {}).values() if file.is_file()})


def _check_materials(library: Path, used: set[str], pictures: Pictures, references: References) -> None:
    if library.stat().st_size > MAX_MTL_BYTES:
        raise RenderFailure("too_large", f"{library.name} has more than {MAX_MTL_BYTES:,} bytes")
    seen, drawn = set(), False
    for line in map(str.strip, _text(library.read_bytes()).splitlines()):
        if line.startswith("newmtl"):
            drawn = line[6:].strip() in used
        elif drawn and (reference := _map(line)[1]) and reference not in seen:
            seen.add(reference)
            # Not every map is drawn with: the importer names a missing one that is.
            picture = references.find(reference, library, required=False)
            if picture.is_file():
                pictures.add(picture, reference)


def _map(line: str) -> tuple[str, str]:
    """Return what stands before the picture's path in a line of a material library, and the path; empty if none."""
    if not (found := MAPS.match(line.strip())):
        return "", ""
    reference = found[2]
    while option := OPTIONS.match(reference):
        reference = reference[option.end() :]
    return line.strip().removesuffix(reference), reference.strip('"')


def _text(data: bytes) -> str:
    return re.sub(rb"\\\r?\n", b" ", data).decode(errors="surrogateescape").lstrip("\ufeff").strip().strip('"')
