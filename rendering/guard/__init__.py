"""The first wall: what a file declares and refers to is checked before Blender opens it.

Assets come from strangers. A file of a few bytes may ask for terabytes, or for a picture from somebody's home.
"""

from pathlib import Path
from xml.parsers.expat import ExpatError

from rendering.failure import RenderFailure
from rendering.guard import collada, fbx, gltf, obj, points, usd

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


def check(path: Path) -> None:
    """Refuse a file that lies about itself, wants too much, or refers outside its own folder.

    Raises:
        RenderFailure: `unreadable`, `too_large`, `external` or `incomplete`.
    """
    suffix = path.suffix.lower()
    if suffix not in CHECKS:
        raise RenderFailure("unreadable", f"{suffix or 'a file without suffix'} is no supported format")
    if path.stat().st_size > MAX_BYTES:
        raise RenderFailure("too_large", f"the file has {path.stat().st_size:,} bytes, more than {MAX_BYTES:,}")
    try:
        CHECKS[suffix](path)
    except RecursionError:
        raise RenderFailure("too_large", "it is nested too deep") from None
    except (LookupError, TypeError, ValueError, AttributeError, EOFError, ExpatError) as error:
        # What a parser stumbles over when a file is not what its suffix says.
        raise RenderFailure("unreadable", f"it is no sound {suffix} file: {type(error).__name__}: {error}") from error
