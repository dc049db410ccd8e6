"""Points of a picture found again in views a few degrees aside."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference.poses import Turn
from rendering.cameras import Array

MOST_POINTS = 1000  # of one picture
RIM = 2  # pixels along the outline that belong to no point: what is seen there changes with the view
WHITE = 250  # of 255; the background
RATIO = 0.92  # of the distances to the best and the next best candidate, at most (Lowe 2004, section 7.1)
UNLIKE = 0.5  # squared distance of two descriptors of length 1 that show different things


def match_views(picture: Image.Image, views: Sequence[Image.Image], turns: Sequence[Turn]) -> Array:
    """Places `[points, 1 + views, 2]` (column, row) in the picture and the views; NaN where a view does not show it.

    In picture sides from the top left corner. The points are SIFT's; a match is the nearest descriptor (RootSIFT,
    Arandjelović 2012) within the distance that the turn can move a point, if each is the other's nearest.
    """
    side = picture.width
    places, words = _features(picture)
    tracks = [places]
    for view, (polar, azimuth, _) in zip(views, turns, strict=True):
        found, described = _features(view)
        away = side * (0.01 + 0.5 * math.radians(math.hypot(polar, azimuth)))  # of a point 0.6 sizes from the axis
        track = np.full_like(places, np.nan)
        if len(places) and len(found) > 1:
            unlikeness = 2 - 2 * words @ described.T
            unlikeness[np.linalg.norm(places[:, None] - found, axis=2) > away] = np.inf
            best, (least, second) = unlikeness.argmin(axis=1), np.partition(unlikeness, 1, axis=1)[:, :2].T
            mutual = unlikeness.argmin(axis=0)[best] == np.arange(len(places))
            kept = mutual & (least < UNLIKE) & (least < RATIO**2 * second)
            track[kept] = found[best[kept]]
        tracks.append(track)
    together = np.stack(tracks, axis=1) / side
    return together[np.isfinite(together[:, 1:, 0]).any(axis=1)]


def _features(image: Image.Image) -> tuple[Array, Array]:
    """Places `[N, 2]` in pixels, and a descriptor `[N, 128]` of length 1 for each."""
    colours: NDArray[np.uint8] = np.asarray(image.convert("RGB"))
    mask = (colours.min(axis=2) < WHITE).astype(np.uint8) * 255
    inside = cv2.erode(mask, np.ones((2 * RIM + 1, 2 * RIM + 1), np.uint8))
    sift = cv2.SIFT.create(MOST_POINTS, contrastThreshold=0.015, edgeThreshold=15)
    keys, found = sift.detectAndCompute(cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY), inside)
    if not keys:
        return np.empty((0, 2)), np.empty((0, 128))
    places = np.array([key.pt for key in keys]) + 0.5
    _, first = np.unique(places.round(2), axis=0, return_index=True)  # a point of two directions comes twice
    words = found[first].astype(np.float64)
    return places[first], np.sqrt(words / np.maximum(words.sum(axis=1, keepdims=True), 1e-9))
