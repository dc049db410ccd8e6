"""Match points of a picture in views a few degrees aside."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference.poses import Turn
from rendering.cameras import Array

MAX_POINTS = 1000  # per picture
OUTLINE_PX = 2  # margin inside the outline without points: the pixels there change with the view
WHITE_LEVEL = 250  # of 255; brighter pixels are background
MAX_RATIO = 0.92  # of the distances to the best and the second best candidate (Lowe 2004, section 7.1)
MAX_DISTANCE = 0.5  # squared, between two unit descriptors of one point
REACH_PER_RADIAN = 0.5  # picture sides that a turn moves a point 0.6 object sizes from its axis, at most


def match_views(picture: Image.Image, views: Sequence[Image.Image], turns: Sequence[Turn]) -> Array:
    """Return the places of the picture's points in the views.

    The points are SIFT's. Two points match if their descriptors (RootSIFT, Arandjelović 2012) are each other's nearest
    among those within the distance that the turn can move a point.

    Args:
        picture: Square, on white.
        views: Of the same size.
        turns: The turn of each view.

    Returns:
        `[points, 1 + views, 2]`, (column, row) from the top left corner in picture sides, the picture first; NaN where
        a view has no match.
    """
    side = picture.width
    places, descriptors = _features(picture)
    tracks = [places]
    for view, (polar, azimuth, _) in zip(views, turns, strict=True):
        view_places, view_descriptors = _features(view)
        reach = side * (0.01 + REACH_PER_RADIAN * math.radians(math.hypot(polar, azimuth)))
        track = np.full_like(places, np.nan)
        if len(places) and len(view_places) > 1:
            distance = 2 - 2 * descriptors @ view_descriptors.T
            distance[np.linalg.norm(places[:, None] - view_places, axis=2) > reach] = np.inf
            best, (first, second) = distance.argmin(axis=1), np.partition(distance, 1, axis=1)[:, :2].T
            mutual = distance.argmin(axis=0)[best] == np.arange(len(places))
            kept = mutual & (first < MAX_DISTANCE) & (first < MAX_RATIO**2 * second)
            track[kept] = view_places[best[kept]]
        tracks.append(track)
    stacked = np.stack(tracks, axis=1) / side
    return stacked[np.isfinite(stacked[:, 1:, 0]).any(axis=1)]


def _features(image: Image.Image) -> tuple[Array, Array]:
    """Return the places `[N, 2]` of SIFT's points in pixels and their unit descriptors `[N, 128]`."""
    colours: NDArray[np.uint8] = np.asarray(image.convert("RGB"))
    mask = (colours.min(axis=2) < WHITE_LEVEL).astype(np.uint8) * 255
    inside = cv2.erode(mask, np.ones((2 * OUTLINE_PX + 1, 2 * OUTLINE_PX + 1), np.uint8))
    sift = cv2.SIFT.create(MAX_POINTS, contrastThreshold=0.015, edgeThreshold=15)
    keypoints, values = sift.detectAndCompute(cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY), inside)
    if not keypoints:
        return np.empty((0, 2)), np.empty((0, 128))
    places = np.array([keypoint.pt for keypoint in keypoints]) + 0.5
    _, first = np.unique(places.round(2), axis=0, return_index=True)  # SIFT repeats a point that has two orientations
    descriptors = values[first].astype(np.float64)
    return places[first], np.sqrt(descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-9))
