"""USD: check and resolve the references of its layers, without composing them. `pxr` comes with Blender."""

import re
import zipfile
from pathlib import Path, PurePosixPath

from rendering.asset_validation.references import Pictures, References
from rendering.failure import RenderFailure

MAX_LAYERS = 1000
LAYER_SUFFIXES = (".usd", ".usda", ".usdc", ".usdz")
TILE = re.compile(r"<(UDIM|UVTILE)>")
MAGIC_BYTES = (b"#usda", b"PXR-USDC", b"PK\x03\x04")


def check(path: Path, references: References) -> None:
    """Check a USD file and find its layers and textures.

    Raises:
        RenderFailure: `external`, `incomplete` or `too_large`.
        ValueError: A layer or package is not valid.
    """
    with open(path, "rb") as start:
        if not start.read(8).startswith(MAGIC_BYTES):
            raise ValueError("the file is neither a USD layer nor a USDZ package")
    pictures, visited, pending = Pictures(), set(), [path]
    while pending:
        layer = pending.pop()
        if layer in visited:
            continue
        visited.add(layer)
        if len(visited) > MAX_LAYERS:
            raise RenderFailure("too_large", f"the file has more than {MAX_LAYERS} layers")
        if zipfile.is_zipfile(layer):
            _check_package(layer, pictures)
            continue
        for reference in _references(str(layer)):
            file = references.find(_first_tile(reference), layer)
            # Blender finds UDIM tiles only by an absolute path, or one that begins with a dot.
            references.redirected |= bool(TILE.search(reference)) and not reference.startswith(".")
            if file.suffix.lower() in LAYER_SUFFIXES:
                pending.append(file)
            else:
                pictures.add(file, reference)


def copy(references: References, folder: Path) -> Path:
    """Write every layer with references into `folder`, with absolute paths, and return the path of the root layer."""
    from pxr import Sdf, UsdUtils

    copies = {layer: folder / f"{number}.usdc" for number, layer in enumerate(references.resolved)}
    for layer, file in copies.items():
        content, resolved = Sdf.Layer.OpenAsAnonymous(str(layer)), references.resolved[layer]

        def absolute(reference: str, resolved: dict[str, Path] = resolved) -> str:
            target = resolved.get(_first_tile(reference))
            return str(copies.get(target) or _with_tile(target, reference)) if target else reference

        UsdUtils.ModifyAssetPaths(content, absolute)
        content.Export(str(file))
    return copies[references.asset]


def _first_tile(reference: str) -> str:
    """Return the reference to the first UDIM tile, which decides whether a texture exists."""
    return TILE.sub(lambda tile: "1001" if tile[1] == "UDIM" else "u1_v1", reference)


def _with_tile(target: Path, reference: str) -> Path:
    """Return `target`, the path of the first tile, with the placeholder of `reference` in its name."""
    if not (tile := TILE.search(reference)):
        return target
    end = len(reference) - tile.end()
    first = "1001" if tile[1] == "UDIM" else "u1_v1"
    stem = target.name[: len(target.name) - end].removesuffix(first)
    return target.with_name(stem + tile[0] + target.name[len(target.name) - end :])


def _check_package(path: Path, pictures: Pictures) -> None:
    """Check that all references of a USDZ lead to files in it."""
    with zipfile.ZipFile(path) as package:
        try:
            names = {entry.filename: entry for entry in package.infolist()}
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in names.values()):
                raise ValueError("a USDZ package must not be compressed")
            for name in names:
                if not name.lower().endswith(LAYER_SUFFIXES):
                    pictures.add(package.read(name), name)
        except zipfile.BadZipFile as error:
            raise ValueError(str(error)) from error
    for name in names:
        if not name.lower().endswith(LAYER_SUFFIXES[:3]):
            continue
        for reference in _references(f"{path}[{name}]"):
            path_inside = PurePosixPath(name).parent / TILE.sub("1001", reference)
            parts: list[str] = []
            for part in path_inside.parts:
                if part == ".." and not parts:
                    raise RenderFailure("external", f"the file refers to {reference[:200]!r} outside its package")
                parts = parts[:-1] if part == ".." else [*parts, part]
            if reference.startswith("/") or "://" in reference:
                raise RenderFailure("external", f"the file refers to {reference[:200]!r} outside its package")
            if "/".join(parts) not in names and reference not in names:
                raise RenderFailure("incomplete", f"the file refers to {reference[:200]!r}, not in its package")


def _references(identifier: str) -> list[str]:
    """Return all paths in one layer: sublayers, references, payloads, clips, textures."""
    from pxr import Sdf, Tf, UsdUtils

    try:
        layer = Sdf.Layer.OpenAsAnonymous(identifier)
    except Tf.ErrorException as error:
        raise ValueError(str(error).rpartition(".h : ")[2].strip("\n '")[:200]) from error
    if layer is None:
        raise ValueError(f"{Path(identifier).name} is not a USD layer")
    paths: list[str] = []

    def collect(text: str) -> str:
        paths.append(text)
        return text

    UsdUtils.ModifyAssetPaths(layer, collect)
    return sorted({text for text in paths if text})
