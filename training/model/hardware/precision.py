"""The number formats that options name, as torch names them. This module imports no torch."""

from enum import StrEnum

from conf.options import UserError


class Precision(StrEnum):
    """A floating point format; `auto` is the format that suits the command and the device."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"
    # Earlier names, of training.encode.
    single = "float32"
    half = "float16"


def parse_precision(name: str, option: str = "precision") -> Precision:
    """Return the precision of a name, or of an earlier name.

    Raises:
        UserError: There is no such precision.
    """
    if name in Precision.__members__:
        return Precision[name]
    raise UserError(f"{option}={name}: must be one of {', '.join(Precision)}")
