"""Check what an untrusted file declares and refers to, before Blender opens it.

A file of a few bytes may ask for terabytes, or for a picture from a home folder.
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
    ".dae": collada.copy,
    ".usd": usd.copy,
    ".usda": usd.copy,
    ".usdc": usd.copy,
}


def validate(path: Path, root: Path | None = None, keep_reversed: bool = False) -> References:
    """Check that a file is what it declares to be, within the limits, and refers to files below `root` only.

    Args:
        path: The asset.
        root: The folder of the source, by default that of the asset.
        keep_reversed: Whether `redirect` keeps faces of an OBJ that Blender would drop as the reverse of another.

    Returns:
        The files that it refers to.

    Raises:
        RenderFailure: `unreadable`, `too_large`, `external` or `incomplete`.
    """
    suffix = path.suffix.lower()
    if suffix not in CHECKS:
        raise RenderFailure("unreadable", f"{suffix or 'a file without suffix'} is no supported format")
    if path.stat().st_size > MAX_BYTES:
        raise RenderFailure("too_large", f"the file has {path.stat().st_size:,} bytes, more than {MAX_BYTES:,}")
    references = References(path, root, keep_reversed)
    try:
        CHECKS[suffix](path, references)
    except RenderFailure:
        raise
    except RecursionError:
        raise RenderFailure("too_large", "it is nested too deep") from None
    except OSError as error:
        raise RenderFailure("unreadable", f"a file of it cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a parser may raise any type for a file that is not what its suffix says
        raise RenderFailure("unreadable", f"it is no sound {suffix} file: {type(error).__name__}: {error}") from error
    return references


def redirect(references: References, folder: Path) -> Path:
    """Return a file for Blender to import: the asset, or a copy in `folder` that names the files that were found.

    Blender opens the paths in a file as they are written, so a file with a redirected reference is never given to it.
    The copy consists of the files that hold references and of symbolic links; `folder` is emptied first. Formats
    whose pictures are opened by `rendering.importer` need none.
    """
    shutil.rmtree(folder, ignore_errors=True)  # of an attempt that ended in a crash
    copy = COPIES.get(references.asset.suffix.lower())
    if copy is None or not references.redirected:
        return references.asset
    folder.mkdir()
    return copy(references, folder)
