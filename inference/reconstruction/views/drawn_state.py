"""Save and load sampled sets of views, so that a repeated command does not sample them again."""

import io
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from conf.options import UserError, first_line
from inference.reconstruction.guidance.guide import DrawnViews
from pipeline.storage import write_atomically


def save_drawn(path: Path, drawn: Mapping[int, DrawnViews]) -> None:
    """Write drawn sets of views, by their numbers, as an .npz file without pickled objects, atomically."""
    arrays: dict[str, NDArray[Any]] = {}
    for number, views in drawn.items():
        arrays |= {f"pictures/{number}": views.pictures, f"masks/{number}": views.masks}
    contents = io.BytesIO()
    np.savez_compressed(contents, **arrays)
    write_atomically(str(path), contents.getvalue())


def load_drawn(path: Path) -> dict[int, DrawnViews]:
    """Return the sets that `save_drawn` wrote.

    Raises:
        UserError: The file is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            numbers = [int(name.removeprefix("pictures/")) for name in arrays if name.startswith("pictures/")]
            return {number: DrawnViews(arrays[f"pictures/{number}"], arrays[f"masks/{number}"]) for number in numbers}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
        raise UserError(
            f"{path}: cannot be continued ({first_line(error)}); delete it, and repeat the command"
        ) from error
