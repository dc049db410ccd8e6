"""Resolve the device and the number format that options name."""

import re

import torch

from conf.options import UserError
from training.model.hardware.precision import Precision

DEVICE = re.compile(r"(cpu|cuda)(:(0|[1-9][0-9]?))?")  # torch takes no zeros before the number


def resolve_device(name: str, option: str = "device") -> torch.device:
    """Return the device of a name: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:1`.

    Raises:
        UserError: The name is unknown, or this machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if not DEVICE.fullmatch(name):
        raise UserError(f"{option}={name}: unknown device; use auto, cpu, cuda or cuda:1")
    if kind == "cuda" and int(index or 0) >= (devices := torch.cuda.device_count()):
        raise UserError(f"{option}={name}: torch finds {devices} CUDA devices on this machine; use auto or cpu")
    return torch.device(name)


def training_dtype(precision: Precision, gpu: bool) -> torch.dtype:
    """Return the type that a training step computes in; weights, optimiser and average are float32 in any case.

    `auto` is bfloat16 on a GPU with hardware for it, else float32: attention in bfloat16 is slower on CPUs.
    """
    if precision is Precision.auto:
        has_bfloat16 = gpu and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bfloat16 else torch.float32
    return torch_dtype(precision)


def torch_dtype(precision: Precision) -> torch.dtype:
    """Return the torch type of a precision other than `auto`."""
    return getattr(torch, precision.value)


def dtype_name(dtype: torch.dtype) -> str:
    """Return the name of a type without `torch.`."""
    return str(dtype).removeprefix("torch.")
