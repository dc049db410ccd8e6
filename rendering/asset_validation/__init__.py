"""Validate an untrusted file before Blender opens it: its structure, declared sizes and references.

A file of a few bytes can declare terabytes, or refer to an image in a home folder.
"""

import shutil
from pathlib import Path

from rendering.asset_validation import collada, fbx, gltf, obj, points, usd
from rendering.asset_validation.references import References
from rendering.failure import RenderFailure

MAX_BYTES = 4 << 30

CHECKS = {
    ".glb": gltf.check,
    ".gltf": gltf.check,
    ".obj": obj.check,
    ".fbx": fbx.check,
    ".ply": points.check_ply,
    ".stl": points.check_stl,
    ".dae": collada.check,
    ".usd": usd.check,
    ".usda": usd.check,
    ".usdc": usd.check,
    ".usdz": usd.check,
}


COPIES = {
    ".glb": gltf.copy,
    ".gltf": gltf.copy,
    ".obj": obj.copy,
    ".stl": points.copy_stl,
    ".dae": collada.copy,
    ".usd": usd.copy,
    ".usda": usd.copy,
    ".usdc": usd.copy,
}


def validate(path: Path, root: Path | None = None, keep_reversed: bool = False) -> References:
    """Check that a file is valid, within the limits, and refers to files below `root` only.

    Args:
        path: The asset.
        root: The folder of the source, by default that of the asset.
        keep_reversed: Whether `redirect` keeps faces of an OBJ that reverse another face, which Blender drops.

    Returns:
        The files that the asset refers to.

    Raises:
        RenderFailure: `unreadable`, `too_large`, `external` or `incomplete`.
    """
    suffix = path.suffix.lower()
    if suffix not in CHECKS:
        raise RenderFailure("unreadable", f"{suffix or 'a file without suffix'} is not a supported format")
    if path.stat().st_size > MAX_BYTES:
        raise RenderFailure("too_large", f"the file has {path.stat().st_size:,} bytes, more than {MAX_BYTES:,}")
    references = References(path, root, keep_reversed)
    try:
        CHECKS[suffix](path, references)
    except RenderFailure:
        raise
    except RecursionError:
        raise RenderFailure("too_large", "the file is nested too deep") from None
    except OSError as error:
        raise RenderFailure("unreadable", f"a file of the asset cannot be read: {error.strerror or error}") from error
    except Exception as error:  # parsers raise many types for invalid files
        raise RenderFailure("unreadable", f"not a valid {suffix} file: {type(error).__name__}: {error}") from error
    return references


def redirect(references: References, folder: Path) -> Path:
    """Return the file for Blender to import: the asset, or a copy in `folder` with resolved references.

    Blender opens the paths as they are written, so it gets a copy if any reference resolves to another path. The copy
    consists of the files with references and of symbolic links. Formats whose textures are opened by
    `rendering.importer` need no copy.

    Args:
        references: Result of `validate`.
        folder: Folder of the copy; it is deleted first.
    """
    shutil.rmtree(folder, ignore_errors=True)  # left by an attempt that crashed
    copy = COPIES.get(references.asset.suffix.lower())
    if copy is None or not references.redirected:
        return references.asset
    folder.mkdir()
    return copy(references, folder)
