"""Define options with their help text, and the errors that a user can cause."""

from dataclasses import field
from typing import Any

MAX_MESSAGE_LENGTH = 300  # characters of another library's message that a message of this project quotes


class UserError(Exception):
    """An error that the user can cause and correct; a command prints its sentence and exits with code 2."""


class FieldError(UserError):
    """A field of a settings dataclass has an invalid value: `field=value: reason`.

    A library knows the field's name alone. `conf.command` adds the path of the settings in the options of the command,
    such as `renderer.`.

    Args:
        settings: The dataclass.
        field: Name of the field.
        reason: What is wrong, and what to do.
    """

    def __init__(self, settings: Any, field: str, reason: str) -> None:
        super().__init__(settings, field, reason)  # all of them, so that the error can be pickled
        self.settings, self.field, self.reason = settings, field, reason

    def __str__(self) -> str:
        return f"{self.field}={getattr(self.settings, self.field)}: {self.reason}"


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, cut to 300 characters, or the type where it is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:MAX_MESSAGE_LENGTH]


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
