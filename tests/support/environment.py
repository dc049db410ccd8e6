"""Environment variables for commands under test."""

import os
from pathlib import Path


def long_tmpdir_and_no_home(folder: Path) -> dict[str, str]:
    """Return variables that name a folder for temporary files of 150 characters, and a home that cannot be made."""
    (folder / "file").write_text("no folder")
    temporary = folder / ("x" * (149 - len(str(folder))))
    temporary.mkdir()
    return {"TMPDIR": str(temporary), "HOME": str(folder / "file/home")}


def unmeasured() -> dict[str, str]:
    """Return the environment without coverage's hook, with which an interpreter that imported bpy never ends."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
