"""Compare pictures, and estimate means and their uncertainty over objects."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import bootstrap
from skimage.metrics import structural_similarity

from inference.evaluation.predictions import Pixels
from rendering.psnr import psnr

MAX_PSNR_DB = 100.0  # of equal pictures; a single wrong value of 64² pixels gives 89 dB
RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Mean:
    """A mean over objects, with a 95 % bootstrap interval; without one for fewer than two objects."""

    value: float
    low: float | None
    high: float | None


def psnr_db(picture: Pixels, truth: Pixels) -> float:
    """Return the PSNR of a picture `[R, R, 3]`, dB, at most `MAX_PSNR_DB`."""
    return min(psnr(picture, truth), MAX_PSNR_DB)


def ssim(picture: Pixels, truth: Pixels) -> float:
    """Return the mean SSIM of two pictures `[R, R, 3]`.

    The window is that of Wang et al. 2004: Gaussian, σ = 1.5, 11 pixels wide; the mean is over the channels.
    """
    wang = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return float(structural_similarity(picture, truth, data_range=255, channel_axis=2, **wang))


def mean_over_objects(values: ArrayLike) -> Mean:
    """Return the mean of one value per object, with the percentile bootstrap's interval; the resamples are fixed."""
    values = np.asarray(values, dtype=np.float64)
    value = float(values.mean())
    if len(values) < 2:
        return Mean(value, None, None)
    interval = bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(1, 2**22 // len(values)),
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Mean(value, float(interval.low), float(interval.high))
