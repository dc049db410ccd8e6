"""Structural similarity (SSIM, Wang et al. 2004) with the windows and ranges of published evaluations."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from skimage.metrics import structural_similarity

from inference.evaluation.metrics.metric import PictureMetric, Pixels
from inference.evaluation.metrics.pictures import require_pairs

GAUSSIAN = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}  # Wang et al. 2004; 11 pixels wide
GAUSSIAN_PX = 11


def ssim(picture: Pixels, truth: Pixels) -> float:
    """Return the mean SSIM of two pictures `[R, R, 3]`: Gaussian window of 11 pixels, σ = 1.5, mean of the channels."""
    return float(structural_similarity(picture, truth, data_range=255, channel_axis=2, **GAUSSIAN))


def ssim_measured_range(picture: Pixels, truth: Pixels) -> float:
    """Return `ssim` with the larger range of the two pictures, greatest minus least value, in place of 255.

    SyncDreamer's evaluation does so: torchmetrics measures the range if none is given. Its releases of that time left
    out the border, as here; releases since September 2024 (its pull request 2721) mirror the pictures there.
    """
    measured = max(int(np.ptp(picture)), int(np.ptp(truth)))
    if measured == 0:  # both are of one level, where the stabilising constants vanish
        return float(np.array_equal(picture, truth))
    return float(structural_similarity(picture, truth, data_range=measured, channel_axis=2, **GAUSSIAN))


def ssim_uniform(picture: Pixels, truth: Pixels, window: int) -> float:
    """Return the mean SSIM of two pictures `[R, R, 3]` with a uniform window, mean of the channels.

    The covariances are the unbiased ones, scikit-image's default.

    Args:
        picture: Predicted picture.
        truth: True picture.
        window: Side of the window, pixels.
    """
    return float(structural_similarity(picture, truth, data_range=255, channel_axis=2, win_size=window))


def _of_pairs(name: str, function, window: int, predictions: Sequence[Pixels], truths: Sequence[Pixels]) -> list[float]:
    require_pairs(predictions, truths, name, min_side=window)
    return [function(*pair) for pair in zip(predictions, truths, strict=True)]


def _metric(name: str, label: str, window: int, definition: str, function) -> PictureMetric:
    whole = f"scikit-image, {definition}, mean of the channels and of the pixels whose window is inside the picture"
    return PictureMetric(name, label, whole, True, partial(_of_pairs, name, function, window), window)


SSIM = _metric("ssim", "SSIM", GAUSSIAN_PX, "Gaussian window of 11 pixels, σ = 1.5, range 255", ssim)
SSIM_MEASURED_RANGE = _metric(
    "ssim_measured_range",
    "SSIM, measured range",
    GAUSSIAN_PX,
    "Gaussian window of 11 pixels, σ = 1.5, range measured in each pair (the default of torchmetrics in 2023)",
    ssim_measured_range,
)
SSIM_UNIFORM7 = _metric(
    "ssim_uniform7",
    "SSIM, uniform 7",
    7,
    "uniform window of 7 pixels, unbiased covariances, range 255",
    partial(ssim_uniform, window=7),
)
SSIM_UNIFORM11 = _metric(
    "ssim_uniform11",
    "SSIM, uniform 11",
    11,
    "uniform window of 11 pixels, unbiased covariances, range 255 of 255 levels (as range 1 of values in [0, 1])",
    partial(ssim_uniform, window=11),
)
