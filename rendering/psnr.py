"""Compute the peak signal-to-noise ratio."""

import math

import numpy as np
from numpy.typing import ArrayLike


def psnr(images: ArrayLike, truth: ArrayLike, peak: float = 255.0) -> float:
    """Return the peak signal-to-noise ratio of `images`, decibels; infinite if they equal `truth`.

    Args:
        images: Images of any shape, values in [0, `peak`].
        truth: The true images, of the same shape and range.
        peak: The largest possible value.
    """
    error = float(np.mean((np.asarray(images, dtype=np.float64) - np.asarray(truth, dtype=np.float64)) ** 2))
    return 10 * math.log10(peak**2 / error) if error else math.inf
