"""The model that comes with the project, `models/small`, and the check of its files."""

import hashlib
from pathlib import Path
from typing import Any

import yaml

from conf.options import UserError

FOLDER = Path(__file__).resolve().parents[1] / "models/small"
CARD = "README.md"


def shipped_model(folder: Path = FOLDER) -> Path:
    """Return the checkpoint folder of the shipped model.

    Raises:
        UserError: The installation has no such folder, or a file differs from its checksum in the model card.
    """
    if not (folder / CARD).is_file():
        raise UserError(
            "checkpoint: give one; the model that it defaults to is the folder models/small of the project's "
            "repository, which an installed package does not contain"
        )
    for name, digest in read_card(folder)["sha256"].items():
        path = folder / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise UserError(f"{path} is damaged: its sha256 is not the one in {CARD}; restore it with git checkout")
    return folder


def read_card(folder: Path) -> dict[str, Any]:
    """Return the YAML header of a model card, which the Hugging Face hub reads too."""
    _, header, _ = (folder / CARD).read_text().split("---\n", 2)
    return yaml.safe_load(header)
