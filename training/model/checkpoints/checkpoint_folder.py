"""Replace a checkpoint folder as a whole, and recognise folders that this project wrote."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from conf.options import UserError, first_line

PARTS = ("unet", "vae", "image_encoder", "cc_projection", "scheduler")
ENTRIES = {*PARTS, "clip_camera_projection", "feature_extractor", "model_index.json", "training.yaml"}
WRITTEN_BY = "_written_by"  # in model_index.json, where diffusers ignores names with an underscore
PROJECT = "Zero-1-to-3"


def replace_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Write a temporary folder beside `folder`, and rename it once it is complete.

    An earlier checkpoint is deleted; other files in its folder stay. A link to a folder stays, its target is replaced.

    Args:
        folder: Path of the checkpoint.
        write: Writes the checkpoint to the folder it is given.
    """
    folder = folder.resolve()
    aside, old = (folder.with_name(f".{folder.name}.{suffix}") for suffix in ("part", "old"))
    if old.exists():  # a process was killed between the two renames below, or after them
        _discard(old, folder) if folder.exists() else old.rename(folder)
    shutil.rmtree(aside, ignore_errors=True)
    with discard_on_error(aside):
        write(aside)
    if folder.exists():
        folder.rename(old)
    aside.rename(folder)
    if old.exists():
        _discard(old, folder)


def _discard(old: Path, folder: Path) -> None:
    """Delete the earlier checkpoint `old`, after moving other files in it to `folder`."""
    for path in old.iterdir():
        if path.name not in ENTRIES:
            path.rename(folder / path.name)
    shutil.rmtree(old)


def is_own(folder: Path) -> bool:
    """Return whether this project wrote the checkpoint in `folder`, as its model_index.json says."""
    try:
        index = json.loads((folder / "model_index.json").read_text())
    except (OSError, ValueError, RecursionError):
        return False
    if not isinstance(index, dict):
        return False
    if WRITTEN_BY in index:
        return index[WRITTEN_BY] == PROJECT
    # Earlier versions of this project wrote no name, but this version of diffusers and these entries only.
    by_us = str(index.get("_diffusers_version")).startswith("0.42.")
    return by_us and "requires_safety_checker" in index and {path.name for path in folder.iterdir()} <= ENTRIES


@contextmanager
def discard_on_error(aside: Path) -> Iterator[None]:
    """Remove a file or folder if writing it fails.

    Raises:
        UserError: torch.save or safetensors cannot write, usually because the disk is full.
    """
    try:
        yield
    except BaseException as error:
        if aside.is_dir():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.unlink(missing_ok=True)
        if isinstance(error, SafetensorError) or "inline_container" in str(error):
            raise UserError(f"{aside.parent} cannot be written, its disk may be full: {first_line(error)}") from error
        raise
