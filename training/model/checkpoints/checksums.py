"""Checksums of a checkpoint folder, in a file `SHA256SUMS` as `sha256sum` writes and checks it."""

import hashlib
from pathlib import Path

from conf.options import UserError

FILE = "SHA256SUMS"
MAX_BYTES = 1 << 20  # of that file


def require_intact(folder: Path) -> None:
    """Check the files of a folder against its `SHA256SUMS`; a folder without one passes.

    Raises:
        UserError: A file is missing or differs, or a line is not a checksum of a file in the folder.
    """
    sums = folder / FILE
    if not sums.is_file():
        return
    with sums.open("rb") as file:
        lines = file.read(MAX_BYTES).decode(errors="replace").splitlines()
    for line in lines:
        digest, _, name = line.partition("  ")
        path = folder / name
        if len(digest) != 64 or Path(name).is_absolute() or ".." in Path(name).parts:
            raise UserError(f"{sums}: {line[:100]!r} is not the checksum of a file in this folder")
        if not path.is_file() or _sha256(path) != digest:
            raise UserError(f"{path} is missing or damaged: its checksum is not the one in {FILE}; restore the folder")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
