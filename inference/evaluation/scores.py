"""Score every picture, and collect the scores to figures: means over objects, by angle, and against the model."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from inference.evaluation.measures import Mean, mean_over_objects

BIN_DEGREES = 30
POSE_WITHIN_DEGREES = 20.0
METRICS = ("psnr_db", "ssim", "pose_within_20", "pose_within_20_clear")


@dataclass(frozen=True)
class ViewScore:
    """The score of one picture.

    Attributes:
        set: Name of the set.
        uid: Object.
        pair: Number of the pair.
        input: Index of the input view.
        target: Index of the target view.
        angle_degrees: Great-circle angle between the two cameras.
        azimuth_change_degrees: Absolute change of the azimuth.
        method: Name of the method that made the picture.
        psnr_db: PSNR; None for the true view.
        ssim: SSIM; None for the true view.
        pose_error_degrees: Angle between the target camera and the one that the picture shows; None without references.
        is_clear: Whether the true view of the pair shows the target camera within 20°; it does not if the object
            looks alike from several sides. None without references.
    """

    set: str
    uid: str
    pair: int
    input: int
    target: int
    angle_degrees: float
    azimuth_change_degrees: float
    method: str
    psnr_db: float | None
    ssim: float | None
    pose_error_degrees: float | None
    is_clear: bool | None

    @property
    def pose_within_20(self) -> float | None:
        """Return 1 if the picture shows a camera within 20° of the target, else 0; None without references."""
        error = self.pose_error_degrees
        return None if error is None else float(error <= POSE_WITHIN_DEGREES)

    @property
    def pose_within_20_clear(self) -> float | None:
        """Return `pose_within_20` for a pair whose true view is clear, else None."""
        return self.pose_within_20 if self.is_clear else None


@dataclass(frozen=True)
class Figure:
    """A mean over objects of one metric.

    Attributes:
        set: Name of the set.
        method: Method whose pictures are scored.
        minus: Method whose score of the same pair is subtracted; empty for the score itself.
        metric: One of `METRICS`.
        by: Angle that `bin` refers to: angle or azimuth_change; empty for all pairs.
        bin: Least and greatest angle, degrees; None for all pairs.
        objects: Number of objects.
        views: Number of pictures.
        mean: Mean over objects of the mean over their pictures, and its interval.
    """

    set: str
    method: str
    minus: str
    metric: str
    by: str
    bin: tuple[int, int] | None
    objects: int
    views: int
    mean: Mean

    @property
    def record(self) -> dict[str, object]:
        """Return the figure as it is written to metrics.json."""
        return {
            "set": self.set, "method": self.method, "minus": self.minus, "metric": self.metric, "by": self.by,
            "bin_degrees": self.bin, "objects": self.objects, "views": self.views, "mean": self.mean.value,
            "low": self.mean.low, "high": self.mean.high,
        }  # fmt: skip


def figures(scores: Sequence[ViewScore]) -> list[Figure]:
    """Return all figures of the scores: of every set, method and metric; by angle; and of the model minus a method."""
    collected = list[Figure]()
    for name, method, metric, values in _values(scores):
        collected += _of_all_and_bins(name, method, metric, values)
        model = [score for score in scores if score.set == name and score.method == "model"]
        if method not in ("model", "truth"):
            collected += _difference(name, method, metric, model, values)
    return collected


def _values(scores: Sequence[ViewScore]) -> Iterator[tuple[str, str, str, list[ViewScore]]]:
    """Yield set, method, metric and the scores that have a value of this metric."""
    grouped: dict[tuple[str, str], list[ViewScore]] = {}
    for score in scores:
        grouped.setdefault((score.set, score.method), []).append(score)
    for (name, method), group in grouped.items():
        for metric in METRICS:
            if values := [score for score in group if getattr(score, metric) is not None]:
                yield name, method, metric, values


def _of_all_and_bins(name: str, method: str, metric: str, scores: list[ViewScore]) -> list[Figure]:
    collected = [_figure(name, method, "", metric, "", None, [(s.uid, getattr(s, metric)) for s in scores])]
    for by in ("angle", "azimuth_change"):
        for low in range(0, 180, BIN_DEGREES):
            values = [(s.uid, getattr(s, metric)) for s in scores if bin_of(getattr(s, f"{by}_degrees")) == low]
            if values:
                collected.append(_figure(name, method, "", metric, by, (low, low + BIN_DEGREES), values))
    return collected


def _difference(
    name: str, method: str, metric: str, model: list[ViewScore], others: list[ViewScore]
) -> Iterable[Figure]:
    """Return the figure of the model's score minus the score of another method for the same pair."""
    other = {(score.uid, score.pair): getattr(score, metric) for score in others}
    values = [
        (score.uid, getattr(score, metric) - other[score.uid, score.pair])
        for score in model
        if getattr(score, metric) is not None and (score.uid, score.pair) in other
    ]
    return [_figure(name, "model", method, metric, "", None, values)] if values else []


def _figure(
    name: str,
    method: str,
    minus: str,
    metric: str,
    by: str,
    bin: tuple[int, int] | None,
    values: Sequence[tuple[str, float]],
) -> Figure:
    objects: dict[str, list[float]] = {}
    for uid, value in values:
        objects.setdefault(uid, []).append(value)
    mean = mean_over_objects([float(np.mean(group)) for group in objects.values()])
    return Figure(name, method, minus, metric, by, bin, len(objects), len(values), mean)


def bin_of(angle_degrees: float) -> int:
    """Return the least angle of the bin of an angle in [0°, 180°]."""
    return min(math.floor(angle_degrees / BIN_DEGREES), 180 // BIN_DEGREES - 1) * BIN_DEGREES
