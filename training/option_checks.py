"""Checks of option values, which raise errors that name the option."""

import math

from conf.options import UserError


def require_positive(group: str, config: object, names: tuple[str, ...]) -> None:
    """Check that options are at least 1; see `require`."""
    require(group, config, **dict.fromkeys(names, (1, math.inf)))


def require(group: str, config: object, **bounds: tuple[float, float]) -> None:
    """Check that options are finite and within bounds.

    Args:
        group: Prefix of the options' names, such as `data.`.
        config: Holder of the options.
        bounds: Smallest and largest value of each option.

    Raises:
        UserError: An option is out of bounds.
    """
    for name, (lowest, highest) in bounds.items():
        value = getattr(config, name)
        if not lowest <= value <= highest or math.isinf(value):  # the comparison is false for NaN
            limit = "" if math.isinf(highest) else f" and at most {highest:g}"
            raise UserError(f"{group}{name}={value}: must be at least {lowest:g}{limit}")


def require_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Check that an option has one of some values.

    Raises:
        UserError: It has another value.
    """
    if value not in choices:
        raise UserError(f"{name}={value}: unknown here; use one of {', '.join(choices)}")


def require_local(name: str, path: str, remedy: str) -> None:
    """Check that a path is not a URL.

    Raises:
        UserError: It is one.
    """
    if "://" in path:
        raise UserError(f"{name}={path}: must be a folder of this machine; {remedy}")
