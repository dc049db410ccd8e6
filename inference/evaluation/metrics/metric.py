"""Define a metric of pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Features = NDArray[np.float64]
ScorePairs = Callable[[Sequence[Pixels], Sequence[Pixels]], list[float]]
MIN_SET_PICTURES = 2  # of a set with a distance: fewer have no covariance


@dataclass(frozen=True)
class PictureMetric:
    """A score of each predicted picture against the true one.

    Attributes:
        name: Name in tables, files and benchmarks.
        label: Display name, with its unit.
        definition: Everything that its value depends on: library, window, backbone, range.
        higher_is_better: Whether better pictures score higher.
        score: Returns a score for each of some pairs of predicted and true pictures, uint8 `[R, R, 3]` on white.
            It raises `UserError` if the sizes of a pair differ or are too small for the metric, and `ValueError` for
            arrays of another type.
        min_side: Least side R of a picture, pixels.
    """

    name: str
    label: str
    definition: str
    higher_is_better: bool
    score: ScorePairs
    min_side: int = 1


@dataclass(frozen=True)
class SetMetric:
    """A distance between the distributions of predicted and of true pictures, such as FID.

    Attributes:
        name: Name in tables, files and benchmarks.
        label: Display name.
        definition: Everything that its value depends on, except the number of pictures.
        features: Returns the features `[N, F]` of some pictures.
        distance: Returns the distance between two sets of features, `[N, F]` and `[M, F]`. It raises `UserError` for
            fewer than `MIN_SET_PICTURES` pictures.
    """

    name: str
    label: str
    definition: str
    features: Callable[[Sequence[Pixels]], Features]
    distance: Callable[[Features, Features], float]
