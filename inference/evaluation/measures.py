"""Estimate means and their uncertainty over objects."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import bootstrap

RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Mean:
    """A mean over objects, with a 95 % bootstrap interval; without one for fewer than two objects."""

    value: float
    low: float | None
    high: float | None


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
