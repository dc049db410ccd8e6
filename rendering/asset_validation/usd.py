"""USD: the files that its layers name, read without composing them. `pxr` is the one that comes with Blender."""

import re
import zipfile
from pathlib import Path, PurePosixPath

from rendering.asset_validation.references import Pictures, References
from rendering.failure import RenderFailure

MAX_LAYERS = 1000
LAYERS = (".usd", ".usda", ".usdc", ".usdz")
TILE = re.compile(r"<(UDIM|UVTILE)>")
HEADS = (b"#usda", b"PXR-USDC", b"PK\x03\x04")


def check(path: Path, references: References) -> None:
    with open(path, "rb") as start:
        if not start.read(8).startswith(HEADS):
            raise ValueError("neither #usda nor PXR-USDC nor a USDZ package")
    pictures, seen, todo = Pictures(), set(), [path]
    while todo:
        layer = todo.pop()
        if layer in seen:
            continue
        seen.add(layer)
        if len(seen) > MAX_LAYERS:
            raise RenderFailure("too_large", f"it is made of more than {MAX_LAYERS} layers")
        if zipfile.is_zipfile(layer):
            _check_package(layer, pictures)
            continue
        for reference in _references(str(layer)):
            file = references.find(_first_tile(reference), layer)
            # Blender reads tiles by an absolute path, or one that begins with a dot.
            references.redirected |= bool(TILE.search(reference)) and not reference.startswith(".")
            if file.suffix.lower() in LAYERS:
                todo.append(file)
            else:
                pictures.add(file, reference)


def copy(references: References, folder: Path) -> Path:
    """Write every layer that holds references into `folder`, with absolute paths, and return that of the root layer."""
    from pxr import Sdf, UsdUtils

    copies = {layer: folder / f"{number}.usdc" for number, layer in enumerate(references.found)}
    for layer, file in copies.items():
        content, found = Sdf.Layer.OpenAsAnonymous(str(layer)), references.found[layer]

        def moved(reference: str, found: dict[str, Path] = found) -> str:
            target = found.get(_first_tile(reference))
            return str(copies.get(target) or _with_tile(target, reference)) if target else reference

        UsdUtils.ModifyAssetPaths(content, moved)
        content.Export(str(file))
    return copies[references.asset]


def _first_tile(reference: str) -> str:
    """Return the reference to the first tile of a picture in tiles: the picture exists if that tile does."""
    return TILE.sub(lambda tile: "1001" if tile[1] == "UDIM" else "u1_v1", reference)


def _with_tile(target: Path, reference: str) -> Path:
    """Return `target`, the first tile of `reference`, with the placeholder for tiles in its name again."""
    if not (tile := TILE.search(reference)):
        return target
    end = len(reference) - tile.end()
    first = "1001" if tile[1] == "UDIM" else "u1_v1"
    stem = target.name[: len(target.name) - end].removesuffix(first)
    return target.with_name(stem + tile[0] + target.name[len(target.name) - end :])


def _check_package(path: Path, pictures: Pictures) -> None:
    """Everything that a USDZ refers to must be in it."""
    with zipfile.ZipFile(path) as package:
        try:
            names = {entry.filename: entry for entry in package.infolist()}
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in names.values()):
                raise ValueError("a USDZ package is not compressed")
            for name in names:
                if not name.lower().endswith(LAYERS):
                    pictures.add(package.read(name), name)
        except zipfile.BadZipFile as error:
            raise ValueError(str(error)) from error
    for name in names:
        if not name.lower().endswith(LAYERS[:3]):
            continue
        for reference in _references(f"{path}[{name}]"):
            place = PurePosixPath(name).parent / TILE.sub("1001", reference)
            parts: list[str] = []
            for part in place.parts:
                if part == ".." and not parts:
                    raise RenderFailure("external", f"it refers to {reference[:200]!r} outside its package")
                parts = parts[:-1] if part == ".." else [*parts, part]
            if reference.startswith("/") or "://" in reference:
                raise RenderFailure("external", f"it refers to {reference[:200]!r} outside its package")
            if "/".join(parts) not in names and reference not in names:
                raise RenderFailure("incomplete", f"it refers to {reference[:200]!r}, which is not in its package")


def _references(identifier: str) -> list[str]:
    """Every path that one layer names: sublayers, references, payloads, clips, textures."""
    from pxr import Sdf, Tf, UsdUtils

    try:
        layer = Sdf.Layer.OpenAsAnonymous(identifier)
    except Tf.ErrorException as error:
        raise ValueError(str(error).rpartition(".h : ")[2].strip("\n '")[:200]) from error
    if layer is None:
        raise ValueError(f"{Path(identifier).name} is no USD layer")
    found: list[str] = []

    def note(text: str) -> str:
        found.append(text)
        return text

    UsdUtils.ModifyAssetPaths(layer, note)
    return sorted({text for text in found if text})
