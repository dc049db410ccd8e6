"""Read a height with its unit."""

import re

from conf.options import UserError

METRES = {"mm": 0.001, "cm": 0.01, "m": 1.0}
HEIGHT = re.compile(r"\s*(\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})\s*(mm|cm|m)\s*", re.ASCII | re.IGNORECASE)


def parse_height(text: str) -> float:
    """Return a height such as `12cm`, `0.3m` or `150mm` in metres.

    Raises:
        UserError: The text is not a positive number with one of these units.
    """
    match = HEIGHT.fullmatch(text)
    if match is None or float(match[1]) <= 0:
        raise UserError(f"height={text}: not a length above 0 with its unit; give one such as 12cm, 0.3m or 150mm")
    return float(match[1]) * METRES[match[2].lower()]
