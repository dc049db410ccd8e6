"""Convert between linear and sRGB values in [0, 1] (IEC 61966-2-1)."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rendering.cameras import Array


def to_linear(srgb: ArrayLike) -> Array:
    """Return the linear values of sRGB ones."""
    srgb = np.asarray(srgb, dtype=np.float64)
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def from_linear(linear: ArrayLike) -> Array:
    """Return the sRGB values of linear ones, which are clipped to [0, 1]."""
    linear = np.clip(np.asarray(linear, dtype=np.float64), 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def to_bytes(values: ArrayLike) -> NDArray[np.uint8]:
    """Return values in [0, 1], others clipped, as uint8."""
    return np.round(255 * np.clip(np.asarray(values), 0, 1)).astype(np.uint8)
