"""The number formats that options name, as torch names them. This module imports no torch."""

from enum import StrEnum


class Precision(StrEnum):
    """A floating point format; `auto` is the format that suits the command and the device."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"
    # Earlier names of training.encode.
    single = "float32"
    half = "float16"
