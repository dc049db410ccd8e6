"""Quality flags of a rendered object, by which a training run can exclude objects.

nearly_blank  covers less than 0.5 % of every view
clipped       reaches over the border of at least one view
plain         has no texture and a single colour
flat          is a plane, in any orientation
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

VERDICTS = ("nearly_blank", "clipped", "plain", "flat")
MAX_BLANK_COVERAGE = 0.005  # part of the view's pixels
MAX_CLIPPED_BORDER = 0.01  # part of the view's outermost pixels
MAX_FLAT_RATIO = 0.02  # smallest extent by the middle one


@dataclass(frozen=True)
class ViewStats:
    """Coverage of one view, as parts of 1."""

    coverage: float  # of all pixels
    border: float  # of the outermost pixels


def view_stats(alpha: NDArray[np.uint8]) -> ViewStats:
    """Return the statistics of a view from its `alpha` `[H, W]`."""
    border = np.concatenate([alpha[0], alpha[-1], alpha[1:-1, 0], alpha[1:-1, -1]])
    return ViewStats(float(alpha.mean() / 255), float(border.mean() / 255))


def quality_flags(stats: Sequence[ViewStats], points: NDArray[np.float64], colours: int) -> list[str]:
    """Return the flags that apply, in the order of `VERDICTS`.

    Args:
        stats: Statistics of each view.
        points: Normalised vertices `[N, 3]`.
        colours: Number of colours of the materials (`rendering.blender.count_colours`).
    """
    flags = {
        "nearly_blank": max(view.coverage for view in stats) < MAX_BLANK_COVERAGE,
        "clipped": any(view.border > MAX_CLIPPED_BORDER for view in stats),
        "plain": colours <= 1,
        "flat": flatness(points) < MAX_FLAT_RATIO,
    }
    return [flag for flag in VERDICTS if flags[flag]]


def flatness(points: NDArray[np.float64]) -> float:
    """Return the smallest extent of `points` `[N, 3]` along their principal axes, divided by the middle one."""
    centred = points - points.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    smallest, middle, _ = np.sort(np.ptp(centred @ axes, axis=0))
    return float(smallest / middle) if middle else 0.0


def mesh_hash(points: NDArray[np.float64], polygons: int) -> str:
    """Return a hash of the geometry: equal for equal normalised vertices `[N, 3]` in any order."""
    cells = np.rint(points * 4096).astype(np.int64).astype(np.uint64)
    # The sum of the hashes of the vertices (constants of splitmix64) does not depend on their order.
    mixed = (cells * np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB], np.uint64)).sum(axis=1)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    total = int((mixed ^ (mixed >> np.uint64(31))).sum())
    return hashlib.sha256(f"{len(points)} {polygons} {total}".encode()).hexdigest()[:32]
