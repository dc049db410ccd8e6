"""Define the score of a picture, and aggregate scores: means over objects, by angle, and differences."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from inference.evaluation.measures import Mean, mean_over_objects

BIN_DEGREES = 30
POSE_WITHIN_DEGREES = 20.0
POSE_METRICS = ("pose_within_20", "pose_within_20_clear")
View = tuple[str, int, int]  # uid, input view, target view


@dataclass(frozen=True)
class ViewScore:
    """The scores of one picture.

    Attributes:
        benchmark: Name of the benchmark.
        set: Name of the set.
        uid: Object.
        input: Index of the input view.
        target: Index of the target view.
        angle_degrees: Great-circle angle between the two cameras.
        azimuth_change_degrees: Absolute change of the azimuth.
        method: Name of the method that made the picture.
        sample: Number of the sample; None for the best of several.
        values: Scores by the name of the metric; none for the true view and for a missing picture.
        pose_error_degrees: Angle between the target camera and the one that the picture shows; None without references.
        is_clear: Whether the true view of the pair shows the target camera within 20°; it does not if the object
            looks alike from several sides. None without references.
        missing: Why there is no picture; empty if there is one.
    """

    benchmark: str
    set: str
    uid: str
    input: int
    target: int
    angle_degrees: float
    azimuth_change_degrees: float
    method: str
    sample: int | None
    values: Mapping[str, float]
    pose_error_degrees: float | None
    is_clear: bool | None
    missing: str = ""

    @property
    def view(self) -> View:
        """Return the key of the target view."""
        return self.uid, self.input, self.target

    def value(self, metric: str) -> float | None:
        """Return the score in a metric, the pose metrics included; None if the picture has none."""
        error = self.pose_error_degrees
        match metric:
            case "pose_within_20":
                return None if error is None else float(error <= POSE_WITHIN_DEGREES)
            case "pose_within_20_clear":
                return self.value("pose_within_20") if self.is_clear else None
        return self.values.get(metric)


@dataclass(frozen=True)
class Figure:
    """A mean over objects of one metric.

    Attributes:
        benchmark: Name of the benchmark.
        set: Name of the set.
        method: Method whose pictures are scored.
        minus: Method whose score of the same view is subtracted; empty for the score itself.
        metric: Name of the metric.
        by: Angle that `bin` refers to: angle or azimuth_change; empty for all views.
        bin: Least and greatest angle, degrees; None for all views.
        objects: Number of objects.
        views: Number of pictures.
        mean: Mean over objects of the mean over their pictures, and its interval.
    """

    benchmark: str
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
            "benchmark": self.benchmark, "set": self.set, "method": self.method, "minus": self.minus,
            "metric": self.metric, "by": self.by, "bin_degrees": self.bin, "objects": self.objects,
            "views": self.views, "mean": self.mean.value, "low": self.mean.low, "high": self.mean.high,
        }  # fmt: skip


@dataclass(frozen=True)
class SetDistance:
    """The distance between the distributions of a method's pictures and of the true ones.

    Attributes:
        benchmark: Name of the benchmark.
        set: Name of the set.
        method: Method whose pictures are compared.
        metric: Name of the metric.
        value: The distance.
        pictures: Number of its pictures.
        true_pictures: Number of true pictures.
    """

    benchmark: str
    set: str
    method: str
    metric: str
    value: float
    pictures: int
    true_pictures: int


def best_of_samples(samples: Sequence[ViewScore], higher_is_better: Mapping[str, bool]) -> ViewScore:
    """Return the best score in each metric among several samples of a view, as the score of another method."""
    best = {
        metric: (max if higher_is_better[metric] else min)(sample.values[metric] for sample in samples)
        for metric in samples[0].values
    }
    errors = [sample.pose_error_degrees for sample in samples if sample.pose_error_degrees is not None]
    first = samples[0]
    return replace(
        first, method=f"{first.method}_best", sample=None, values=best, pose_error_degrees=min(errors, default=None)
    )


def figures(scores: Sequence[ViewScore], subject: str) -> list[Figure]:
    """Return all figures of the scores of one benchmark and set.

    They are of every method and metric: over all views, by angle, and of the subject minus the method.

    Args:
        scores: Scores of all pictures.
        subject: Method that the others are compared with.
    """
    collected = list[Figure]()
    by_method: dict[str, list[ViewScore]] = {}
    for score in scores:
        by_method.setdefault(score.method, []).append(score)
    for method, own in by_method.items():
        for metric in _metrics(own):
            valued = [score for score in own if score.value(metric) is not None]
            if valued:
                collected += _of_all_and_bins(metric, valued)
                if method not in (subject, "truth") and subject in by_method:
                    collected += _difference(metric, by_method[subject], valued)
    return collected


def _metrics(scores: Sequence[ViewScore]) -> list[str]:
    names = dict.fromkeys(name for score in scores for name in score.values)
    return [*names, *POSE_METRICS]


def _of_all_and_bins(metric: str, scores: list[ViewScore]) -> Iterator[Figure]:
    yield _figure(scores, "", metric, "", None, _values(metric, scores))
    for by in ("angle", "azimuth_change"):
        for low in range(0, 180, BIN_DEGREES):
            own = [score for score in scores if bin_of(getattr(score, f"{by}_degrees")) == low]
            if own:
                yield _figure(own, "", metric, by, (low, low + BIN_DEGREES), _values(metric, own))


def _values(metric: str, scores: Iterable[ViewScore]) -> list[tuple[str, float]]:
    return [(score.uid, value) for score in scores if (value := score.value(metric)) is not None]


def _difference(metric: str, subject: Sequence[ViewScore], others: Sequence[ViewScore]) -> list[Figure]:
    """Return the figure of the subject's score minus that of another method for the same view, means over samples."""
    one, two = (_by_view(metric, scores) for scores in (subject, others))
    values = [(view[0], one[view] - two[view]) for view in one if view in two]
    return [_figure(subject, others[0].method, metric, "", None, values)] if values else []


def _by_view(metric: str, scores: Sequence[ViewScore]) -> dict[View, float]:
    samples: dict[View, list[float]] = {}
    for score in scores:
        if (value := score.value(metric)) is not None:
            samples.setdefault(score.view, []).append(value)
    return {view: float(np.mean(values)) for view, values in samples.items()}


def _figure(
    scores: Sequence[ViewScore],
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
    first = scores[0]
    return Figure(first.benchmark, first.set, first.method, minus, metric, by, bin, len(objects), len(values), mean)


def bin_of(angle_degrees: float) -> int:
    """Return the least angle of the bin of an angle in [0°, 180°]."""
    return min(math.floor(angle_degrees / BIN_DEGREES), 180 // BIN_DEGREES - 1) * BIN_DEGREES
