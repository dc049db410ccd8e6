"""Verdicts on an object that has views, in words that a training run can select by.

nearly_blank  in every view it covers less than a part in two hundred of the picture
clipped       in some view it reaches over the frame
plain         no texture, and one colour all over
flat          a plane, however it is turned
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

VERDICTS = ("nearly_blank", "clipped", "plain", "flat")
FAINT = 0.005  # of the picture
THIN = 0.02  # of the middle one of its three extents


@dataclass(frozen=True)
class ViewStats:
    """What one picture shows: the part that is covered, and the part of its outermost pixels."""

    coverage: float
    border: float


def view_stats(alpha: NDArray[np.uint8]) -> ViewStats:
    """`alpha` `[height, width]`."""
    border = np.concatenate([alpha[0], alpha[-1], alpha[1:-1, 0], alpha[1:-1, -1]])
    return ViewStats(float(alpha.mean() / 255), float(border.mean() / 255))


def quality_flags(looks: Sequence[ViewStats], points: NDArray[np.float64], colours: int) -> list[str]:
    """The verdicts that apply, in the order of VERDICTS.

    `points` `[N, 3]` are the normalised vertices; `colours` is how many its materials have, a texture counts as many.
    """
    verdicts = {
        "nearly_blank": max(look.coverage for look in looks) < FAINT,
        "clipped": any(look.border > 0.01 for look in looks),
        "plain": colours <= 1,
        "flat": flatness(points) < THIN,
    }
    return [verdict for verdict in VERDICTS if verdicts[verdict]]


def flatness(points: NDArray[np.float64]) -> float:
    """Of the three extents of `points` `[N, 3]` along their principal axes, the smallest as a part of the next."""
    centred = points - points.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    smallest, middle, _ = np.sort(np.ptp(centred @ axes, axis=0))
    return float(smallest / middle) if middle else 0.0


def mesh_hash(points: NDArray[np.float64], polygons: int) -> str:
    """A name for the geometry: equal for equal normalised vertices `[N, 3]`, in whatever order they come."""
    cells = np.rint(points * 4096).astype(np.int64).astype(np.uint64)
    # Each vertex is scrambled (the odd constants are splitmix64's), then all are added up: a sum knows no order.
    mixed = (cells * np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB], np.uint64)).sum(axis=1)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    total = int((mixed ^ (mixed >> np.uint64(31))).sum())
    return hashlib.sha256(f"{len(points)} {polygons} {total}".encode()).hexdigest()[:32]
