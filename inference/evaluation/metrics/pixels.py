"""Compute pixel errors: PSNR and MSE."""

from collections.abc import Sequence

import numpy as np

from inference.evaluation.metrics.metric import PictureMetric, Pixels
from inference.evaluation.metrics.pictures import require_pairs
from rendering.psnr import psnr

MAX_PSNR_DB = 100.0  # of equal pictures; a single wrong value of 64² pixels gives 89 dB


def psnr_db(picture: Pixels, truth: Pixels) -> float:
    """Return the PSNR of a picture `[R, R, 3]`, dB, at most `MAX_PSNR_DB`."""
    return min(psnr(picture, truth), MAX_PSNR_DB)


def mse(picture: Pixels, truth: Pixels) -> float:
    """Return the mean squared error of a picture `[R, R, 3]`, values in [0, 1]."""
    return float(np.mean((picture / 255.0 - truth / 255.0) ** 2))


def _psnr_of_pairs(predictions: Sequence[Pixels], truths: Sequence[Pixels]) -> list[float]:
    require_pairs(predictions, truths, "psnr_db")
    return [psnr_db(*pair) for pair in zip(predictions, truths, strict=True)]


def _mse_of_pairs(predictions: Sequence[Pixels], truths: Sequence[Pixels]) -> list[float]:
    require_pairs(predictions, truths, "mse")
    return [mse(*pair) for pair in zip(predictions, truths, strict=True)]


PSNR = PictureMetric(
    "psnr_db",
    "PSNR, dB",
    "10 log₁₀(255² / MSE) of each picture, over all pixels and channels of 8 bits, at most 100 dB",
    True,
    _psnr_of_pairs,
)
MSE = PictureMetric(
    "mse", "MSE", "mean squared error over all pixels and channels of 8 bits, scaled to [0, 1]", False, _mse_of_pairs
)
