"""OBJ and its MTL files: check and resolve their references."""

import mmap
import re
import shutil
from pathlib import Path

from rendering.asset_validation.obj_faces import has_reversed, split_reversed
from rendering.asset_validation.references import Pictures, References, link_all
from rendering.failure import RenderFailure

BYTE_ORDER_MARK = "\ufeff".encode()  # Blender ignores a first line that begins with it
# Material libraries and uses; a backslash at the end of a line continues it.
MATERIAL_LINES = re.compile(rb"^(?:\xef\xbb\xbf)?[ \t]*(mtllib|usemtl)((?:\\\r?\n|[^\r\n])+)", re.MULTILINE)
NOT_FINITE_WORDS = (b"nan", b"NaN", b"NAN", b"inf", b"Inf", b"INF")  # searched first, faster than NOT_FINITE
NOT_FINITE = re.compile(rb"^(?:\xef\xbb\xbf)?v [^\n]*(?:nan|inf)", re.MULTILINE | re.IGNORECASE)
MAPS = re.compile(r"(map_\w+|bump|norm|disp|decal|refl)\s+(.*)", re.IGNORECASE)
OPTIONS = re.compile(
    r"-(?:(?:o|s|t)(?:\s+[-+.\deE]+){1,3}|mm(?:\s+[-+.\deE]+){2}|(?:bm|boost|texres)\s+[-+.\deE]+|\w+\s+\w+)\s+"
)
MAX_MTL_BYTES = 64 << 20


def check(path: Path, references: References) -> None:
    """Check an OBJ and its material libraries, and find its textures.

    Raises:
        RenderFailure: `external`, `incomplete`, `degenerate` or `too_large`.
        ValueError: The file is empty or binary.
    """
    if not path.stat().st_size:
        raise ValueError("the file is empty")
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if b"\0" in data[: 1 << 16]:
            raise ValueError("the file is binary")
        if any(data.find(word) >= 0 for word in NOT_FINITE_WORDS) and NOT_FINITE.search(data):
            raise RenderFailure("degenerate", "some points are not finite")
        names = {(match[1], _text(match[2])) for match in MATERIAL_LINES.finditer(data)}
        marked = data[:3] == BYTE_ORDER_MARK
    # Blender also reads a library of the asset's name; others need not exist then.
    own = path.with_suffix(".mtl")
    for line in sorted(name for kind, name in names if kind == b"mtllib"):
        for name in _library_names(line, references):
            references.find(name, path, required=not own.is_file())
    if own.is_file():
        references.find(own.name, path)
    used = {name for kind, name in names if kind == b"usemtl"}
    if not used and (first := _first_material(references)):
        used = {first}
        references.redirected = True  # the copy uses the first material
    pictures = Pictures()
    for library in _libraries(references):
        marked |= library.read_bytes()[:3] == BYTE_ORDER_MARK
        _check_materials(library, used, pictures, references)
    references.redirected |= marked or (references.keep_reversed and len(used) > 1 and has_reversed(path.read_bytes()))


def copy(references: References, folder: Path) -> Path:
    """Write the materials into `folder` with links to their textures, and return the path of the asset there.

    The libraries are merged into one with the name of the asset, which Blender reads by default. An asset without
    `usemtl` gets the first material. The asset is a link, unless its text changes.
    """
    asset = references.asset
    # As deep as the asset's folder, so that `..` in the name of a library cannot leave `folder`.
    target_folder = folder.joinpath(*["_"] * len(asset.parts))
    target_folder.mkdir(parents=True)
    links = link_all((target for files in references.resolved.values() for target in files.values()), target_folder)
    with open(target_folder / f"{asset.stem}.mtl", "w", encoding="utf-8", errors="surrogateescape") as materials:
        for library in _libraries(references):
            resolved = references.resolved.get(library, {})
            for line in _text(library.read_bytes()).splitlines():
                options, reference = _map(line)
                if not reference:
                    materials.write(f"{line}\n")
                elif reference in resolved:
                    materials.write(f"{options}{links[resolved[reference]]}\n")
    with open(asset, "rb") as source, mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as data:
        marked = data[:3] == BYTE_ORDER_MARK
        used = {match[2] for match in MATERIAL_LINES.finditer(data) if match[1] == b"usemtl"}
    first = "" if used else _first_material(references)
    split = references.keep_reversed and len(used) > 1
    if not marked and not first and not split:
        (target_folder / asset.name).symlink_to(asset.absolute())
        return target_folder / asset.name
    with open(asset, "rb") as source, open(target_folder / asset.name, "wb") as target:
        source.seek(len(BYTE_ORDER_MARK) if marked else 0)
        if first:
            target.write(f"usemtl {first}\n".encode(errors="surrogateescape"))
        if split:
            target.writelines(split_reversed(source))
        else:
            shutil.copyfileobj(source, target)
    return target_folder / asset.name


def _first_material(references: References) -> str:
    """Return the name of the first material in the libraries, or an empty string."""
    for library in _libraries(references):
        for line in _text(library.read_bytes()).splitlines():
            if line.strip().startswith("newmtl"):
                return line.strip()[6:].strip()
    return ""


def _library_names(line: str, references: References) -> list[str]:
    """Return the names of the material libraries in a line `mtllib`: one, which may have blanks, or several."""
    names = line.split()
    several = len(names) > 1 and all(name.lower().endswith(".mtl") for name in names)
    if not several or references.find(line, references.asset, required=False).is_file():
        return [line]
    references.redirected = True  # Blender takes the line for one name; the copy has one library
    return names


def _libraries(references: References) -> list[Path]:
    """Return the material libraries of the asset that exist."""
    return sorted({file for file in references.resolved.get(references.asset, {}).values() if file.is_file()})


def _check_materials(library: Path, used: set[str], pictures: Pictures, references: References) -> None:
    if library.stat().st_size > MAX_MTL_BYTES:
        raise RenderFailure("too_large", f"{library.name} has more than {MAX_MTL_BYTES:,} bytes")
    checked, drawn = set(), False
    for line in map(str.strip, _text(library.read_bytes()).splitlines()):
        if line.startswith("newmtl"):
            drawn = line[6:].strip() in used
        elif drawn and (reference := _map(line)[1]) and reference not in checked:
            checked.add(reference)
            # Blender ignores some maps, so a missing one is reported after the import if it is drawn.
            texture = references.find(reference, library, required=False)
            if texture.is_file():
                pictures.add(texture, reference)


def _map(line: str) -> tuple[str, str]:
    """Return the text before a texture's path in a line of a material library, and the path; empty if there is none."""
    if not (match := MAPS.match(line.strip())):
        return "", ""
    reference = match[2]
    while option := OPTIONS.match(reference):
        reference = reference[option.end() :]
    return line.strip().removesuffix(reference), reference.strip('"')


def _text(data: bytes) -> str:
    return re.sub(rb"\\\r?\n", b" ", data).decode(errors="surrogateescape").lstrip("\ufeff").strip().strip('"')
