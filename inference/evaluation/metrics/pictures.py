"""Check the pictures that metrics compare."""

from collections.abc import Sequence

import numpy as np

from conf.options import UserError
from inference.evaluation.metrics.metric import Pixels


def require_pictures(pictures: Sequence[Pixels], name: str, min_side: int = 1) -> None:
    """Raise an error unless all pictures can be scored.

    Args:
        pictures: Pictures, uint8 `[R, R, 3]` each.
        name: Name of the metric.
        min_side: Least side R that the metric is defined for, pixels.

    Raises:
        ValueError: A picture is no array of uint8 `[R, R, 3]`; floats may hold NaN, and are never rounded here.
        UserError: A picture is smaller than `min_side`.
    """
    for picture in pictures:
        shape = np.shape(picture)
        if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or len(shape) != 3 or shape[2] != 3:
            kind = getattr(picture, "dtype", type(picture).__name__)
            raise ValueError(f"{name}: pictures must be uint8 [R, R, 3]; got {kind} {[*shape]}")
        if min(shape[:2]) < min_side:
            raise UserError(
                f"{name}: needs pictures of {min_side}² pixels or more, not {shape[1]}×{shape[0]}; leave {name} out"
            )


def require_pairs(predictions: Sequence[Pixels], truths: Sequence[Pixels], name: str, min_side: int = 1) -> None:
    """Raise an error unless each prediction can be compared with its true picture.

    Args:
        predictions: Predicted pictures, uint8 `[R, R, 3]` each.
        truths: True pictures, as many, each of the size of its prediction.
        name: Name of the metric.
        min_side: Least side R that the metric is defined for, pixels.

    Raises:
        ValueError: The numbers of pictures differ, or a picture is no array of uint8 `[R, R, 3]`.
        UserError: The sizes of a pair differ, or a picture is smaller than `min_side`.
    """
    if len(predictions) != len(truths):
        raise ValueError(f"{name}: {len(predictions)} predictions for {len(truths)} true pictures")
    require_pictures([*predictions, *truths], name, min_side)
    for prediction, truth in zip(predictions, truths, strict=True):
        if prediction.shape != truth.shape:
            (height, width, _), (true_height, true_width, _) = prediction.shape, truth.shape
            raise UserError(
                f"{name}: a prediction has {width}×{height} pixels, its true view {true_width}×{true_height}; "
                "give predictions of the size of the true views"
            )
