"""Define valid uids of objects; a uid is the key of the object's files in a shard."""

import re

from conf.options import UserError

MAX_LENGTH = 200
VALID = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_LENGTH}}}")  # no dot, because a tar member is named <uid>.<extension>
INVALID_CHARACTER = re.compile("[^A-Za-z0-9_-]")


def is_uid(value: object) -> bool:
    """Return whether `value` can be a uid."""
    return isinstance(value, str) and bool(VALID.fullmatch(value))


def require_uid(value: object, name: str = "uid") -> None:
    """Check a uid.

    Args:
        value: Value to check.
        name: Name of the value in the message.

    Raises:
        UserError: `value` cannot be a uid.
    """
    if not is_uid(value):
        rule = f"must be 1 to {MAX_LENGTH} characters of A-Z, a-z, 0-9, _ and -"
        raise UserError(f"{name}={value!r:.300}: {rule}; rename the object")


def as_uid(name: str, max_length: int = MAX_LENGTH) -> str:
    """Return the first `max_length` characters of `name`, with an underscore for each character not valid in a uid."""
    return INVALID_CHARACTER.sub("_", name)[:max_length]
