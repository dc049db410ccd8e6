"""Options of the commands and the error that a user can cause."""

from dataclasses import field
from typing import Any


class UserError(Exception):
    """An error that the user can cause and correct; a command prints its sentence and exits with code 2."""


def option(default: Any, help: str, formerly: str | None = None) -> Any:
    """Return a dataclass field that is an option of a command.

    Args:
        default: value where the command line gives none; "???" for an option that must be given.
        help: one line for `--help`.
        formerly: earlier name of the option, which the command line refuses by naming the new one.
    """
    metadata = {"help": help, "formerly": formerly}
    if isinstance(default, (list, dict, set)) or hasattr(default, "__dataclass_fields__"):
        return field(default_factory=lambda: default, metadata=metadata)
    return field(default=default, metadata=metadata)
