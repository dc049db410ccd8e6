"""How close a drawn view is to the true one."""

import math

import numpy as np
from numpy.typing import NDArray


def psnr(picture: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio in decibels of 8-bit pictures of the same shape; infinite where they are equal."""
    error = np.mean((picture.astype(np.float64) - truth.astype(np.float64)) ** 2)
    return 10 * math.log10(255**2 / error) if error else math.inf
