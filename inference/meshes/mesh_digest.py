"""Hash a mesh and all files that it consists of, to detect a change of any of them."""

import hashlib
from pathlib import Path

from conf.options import UserError
from rendering.asset_validation import validate
from rendering.failure import RenderFailure

CHUNK_BYTES = 1 << 20


def mesh_digest(path: Path) -> str:
    """Return the SHA-256 of a mesh's file, followed by the buffers, material libraries and textures it refers to.

    Of a file that is not valid, the references are unknown, and only the file is hashed.

    Raises:
        UserError: A file cannot be read.
    """
    total = hashlib.sha256()
    try:
        for part in [path, *_references(path)]:
            with part.open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    total.update(chunk)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from error
    return total.hexdigest()


def _references(path: Path) -> list[Path]:
    """Return the files that a mesh refers to and that exist, each once, in the order of the references."""
    try:
        resolved = validate(path).resolved
    except RenderFailure:
        return []
    targets = dict.fromkeys(target for names in resolved.values() for target in names.values())
    return [target for target in targets if target.is_file()]
