"""Find the object in a picture on white."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

BACKGROUND_LEVELS = 10.0  # a pixel whose channels all lie this close to white is background
OBJECT_LEVELS = 40.0  # further levels until a pixel is fully part of the object
MIN_SHARE = 0.02  # of the largest part; smaller ones are noise of the model


def silhouette(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the coverage `[R, R]` in [0, 1] of the object in a picture `[R, R, 3]` on white.

    Pixels count as covered by their difference from white. White parts that the object surrounds are filled, and parts
    of less than 2 % of the largest one's area dropped.
    """
    difference = 255.0 - picture.min(axis=2)
    coverage = np.clip((difference - BACKGROUND_LEVELS) / OBJECT_LEVELS, 0, 1).astype(np.float32)
    labels, count = ndimage.label(coverage > 0, structure=np.ones((3, 3)))
    if count == 0:
        return coverage
    areas = ndimage.sum_labels(coverage, labels, np.arange(1, count + 1))
    kept = np.isin(labels, 1 + np.flatnonzero(areas >= MIN_SHARE * areas.max()))
    inside = ndimage.binary_fill_holes(kept & (coverage > 0.5)) & ~(kept & (coverage > 0))
    filled: NDArray[np.float32] = np.where(inside, np.float32(1), coverage * kept)
    return filled
