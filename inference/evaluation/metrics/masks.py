"""Compute the overlap of the object's silhouettes in two pictures on white."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from inference.evaluation.metrics.metric import PictureMetric, Pixels
from inference.evaluation.metrics.pictures import require_pairs

BACKGROUND_LEVELS = 16  # a pixel whose channels all lie this close to white is background
Mask = NDArray[np.bool_]


def object_mask(picture: Pixels) -> Mask:
    """Return the pixels `[R, R]` of a picture `[R, R, 3]` on white that show the object.

    A pixel shows the object if one of its channels is more than `BACKGROUND_LEVELS` below 255. Parts of an object that
    are as white as the background are therefore missing, in a true picture as in a predicted one.
    """
    return picture.min(axis=2) < 255 - BACKGROUND_LEVELS


def iou(mask: Mask, truth: Mask) -> float:
    """Return intersection over union of two masks; 1 if both are empty, 0 if one of them is.

    Raises:
        ValueError: The shapes of the masks differ.
    """
    if mask.shape != truth.shape:
        raise ValueError(f"masks of {[*mask.shape]} and {[*truth.shape]} pixels cannot be compared")
    union = np.count_nonzero(mask | truth)
    return np.count_nonzero(mask & truth) / union if union else 1.0


def _score(predictions: Sequence[Pixels], truths: Sequence[Pixels]) -> list[float]:
    require_pairs(predictions, truths, "mask_iou")
    return [iou(object_mask(one), object_mask(truth)) for one, truth in zip(predictions, truths, strict=True)]


MASK_IOU = PictureMetric(
    "mask_iou",
    "Mask IoU",
    f"intersection over union of the pixels with a channel more than {BACKGROUND_LEVELS} of 255 levels below white, "
    "in both pictures; 1 if neither has such a pixel, 0 if one of them has none",
    True,
    _score,
)
