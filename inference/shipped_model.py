"""Locate `models/small`, the checkpoint that comes with the project."""

from pathlib import Path

from conf.options import UserError

FOLDER = Path(__file__).resolve().parents[1] / "models/small"


def shipped_model(folder: Path = FOLDER) -> Path:
    """Return the checkpoint folder of the shipped model.

    Raises:
        UserError: The installation has no such folder.
    """
    if not folder.is_dir():
        raise UserError(
            "checkpoint: give one; the model that it defaults to is the folder models/small of the project's "
            "repository, which an installed package does not contain"
        )
    return folder
