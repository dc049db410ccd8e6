"""What every floor says to its user: options with a line of help, and errors that name the way out."""

from dataclasses import field
from typing import Any


class UserError(Exception):
    """Something the user can mend. The message is one clear sentence; an entry prints it and exits with 2."""


def option(default: Any, help: str) -> Any:
    """A dataclass field whose default and one line of help appear under the entry's `--help`."""
    if isinstance(default, (list, dict, set)) or hasattr(default, "__dataclass_fields__"):
        return field(default_factory=lambda: default, metadata={"help": help})
    return field(default=default, metadata={"help": help})
