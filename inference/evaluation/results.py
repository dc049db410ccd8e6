"""Write the results of an evaluation: per_view.csv, per_object.csv, metrics.json and report.html."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inference.evaluation.config import ALL_BENCHMARKS, EvaluateConfig, set_name
from inference.evaluation.metrics.metric import MIN_SET_PICTURES, PictureMetric, SetMetric
from inference.evaluation.protocol import SETTINGS
from inference.evaluation.scored_set import Mismatches, ScoredSet
from inference.evaluation.scores import POSE_METRICS, Figure, SetDistance, ViewScore
from pipeline.csv_file import csv_file
from pipeline.storage import write_atomically

SCORE_FIELDS = (
    "benchmark", "set", "uid", "input", "target", "angle_degrees", "azimuth_change_degrees", "method", "sample",
    "pose_error_degrees", "is_clear", "missing",
)  # fmt: skip


@dataclass(frozen=True)
class Results:
    """The scores of a set under one benchmark.

    Attributes:
        scored: The set.
        picture_metrics: Metrics of each picture.
        set_metrics: Metrics of all pictures together.
        scores: Scores of every picture.
        figures: Means and intervals.
        distances: Values of `set_metrics`.
        deviations: Sentences about differences from the protocol of the benchmark.
    """

    scored: ScoredSet
    picture_metrics: Sequence[PictureMetric]
    set_metrics: Sequence[SetMetric]
    scores: Sequence[ViewScore]
    figures: Sequence[Figure]
    distances: Sequence[SetDistance]
    deviations: Sequence[str]

    @property
    def missing(self) -> dict[str, list[str]]:
        """Return the reasons of missing pictures by method; methods without any are left out."""
        reasons: dict[str, list[str]] = {}
        for score in self.scores:
            if score.missing:
                reasons.setdefault(score.method, []).append(score.missing)
        return reasons


def metrics_record(
    config: EvaluateConfig, plan: Mapping[str, Any], results: Sequence[Results], left_out: Sequence[str]
) -> dict[str, Any]:
    """Return the contents of metrics.json."""
    metrics = {metric.name: metric.definition for one in results for metric in one.picture_metrics}
    metrics |= {metric.name: metric.definition for one in results for metric in one.set_metrics}
    benchmarks = {one.scored.benchmark.name: asdict(one.scored.benchmark) for one in results}
    return {
        **plan,
        "checkpoint": config.checkpoint,
        "predictions": config.prediction_folders,
        "oracle": config.oracle,
        "views": config.views,
        "splits": config.splits,
        "training": config.training,
        "references": config.references,
        "limit": config.limit,
        "settings": SETTINGS | metrics,
        "benchmarks": benchmarks,
        "left_out": left_out,
        "tables": [_table_record(one) for one in results],
        "figures": [figure.record for one in results for figure in one.figures],
        "distances": [asdict(distance) for one in results for distance in one.distances],
    }


def _table_record(one: Results) -> dict[str, Any]:
    missing = {method: {"pictures": len(reasons), "first": reasons[0]} for method, reasons in one.missing.items()}
    return {
        "benchmark": one.scored.benchmark.name,
        "set": one.scored.name,
        "objects": len(one.scored.objects),
        "views": sum(len(obj.pairs) for obj in one.scored.objects),
        "resolution": one.scored.resolution,
        "deviations": one.deviations,
        "missing": missing,
    }


def write_results(output: Path, metrics: Mapping[str, Any], results: Sequence[Results], report: bytes) -> None:
    """Write all files of the results, and print the means."""
    write_atomically(str(output / "per_view.csv"), view_table(results))
    write_atomically(str(output / "per_object.csv"), object_table(results))
    write_atomically(str(output / "report.html"), report)
    write_atomically(str(output / "metrics.json"), (json.dumps(metrics, indent=1) + "\n").encode())
    for line in [*metrics["left_out"], *summary(results)]:
        print(line)
    print(f"report: {output / 'report.html'}")


def left_out(
    config: EvaluateConfig, sets: Sequence[ScoredSet], mismatches: Mismatches, references: Collection[str]
) -> list[str]:
    """Return a sentence for each part of the evaluation that is left out.

    Args:
        config: Options of the command.
        sets: The sets that have objects to score.
        mismatches: Which benchmarks cannot score which sets.
        references: Names of the sets that have references.
    """
    names = {one.name for one in sets}
    sentences = [
        f"Views {name} are not scored under {benchmark}: {reason}."
        for (name, benchmark), reason in mismatches.items()
        if reason and config.benchmark == ALL_BENCHMARKS
    ]
    if empty := [folder for folder in config.views if set_name(folder) not in names]:
        sentences.append(f"Training held out no object of {', '.join(empty)}.")
    if not config.training:
        sentences.append("The baselines mean view and nearest training object are left out: no training=… was given.")
    if missing := sorted(names - set(references)):
        sentences.append(
            f"The poses that pictures of {', '.join(missing)} show are left out: no references=… has them."
        )
    if unasked := {"wrong_pose", "no_pose"} - set(config.methods):
        sentences.append(f"Left out by methods=…: {', '.join(sorted(unasked))}.")
    return sentences


def undefined_distances(results: Sequence[Results]) -> list[str]:
    """Return a sentence for each distance that is not defined, since the method or the set has too few pictures."""
    return [
        f"{one.scored.title}: {metric.label} of {method.label} is left out, which needs {MIN_SET_PICTURES} pictures."
        for one in results
        for metric in one.set_metrics
        for method in one.scored.methods
        if (method.name, metric.name) not in {(distance.method, distance.metric) for distance in one.distances}
    ]


def view_table(results: Sequence[Results]) -> bytes:
    """Return per_view.csv: one row for each picture."""
    names = _metric_names(results)
    scores = (score for one in results for score in one.scores)
    rows = (
        [*(_cell(getattr(score, name)) for name in SCORE_FIELDS), *(_cell(score.values.get(name)) for name in names)]
        for score in scores
    )
    return csv_file([*SCORE_FIELDS, *names], rows)


def object_table(results: Sequence[Results]) -> bytes:
    """Return per_object.csv: the means of each object and method, and its numbers of scored and missing pictures."""
    names = [*_metric_names(results), *POSE_METRICS]
    return csv_file(
        ["benchmark", "set", "uid", "method", "views", "missing", *names],
        (row for one in results for row in _object_rows(one.scores, names)),
    )


def _object_rows(scores: Sequence[ViewScore], names: Sequence[str]) -> Iterator[list[object]]:
    groups: dict[tuple[str, str, str, str], list[ViewScore]] = {}
    for score in scores:
        groups.setdefault((score.benchmark, score.set, score.uid, score.method), []).append(score)
    for key, group in groups.items():
        missing = sum(bool(score.missing) for score in group)
        yield [*key, len(group) - missing, missing, *(_mean(group, name) for name in names)]


def summary(results: Sequence[Results]) -> list[str]:
    """Return a line for each table and method: the means over all views, and the number of missing pictures."""
    lines = []
    for one in results:
        totals = [figure for figure in one.figures if not figure.by and not figure.minus]
        for method in dict.fromkeys(score.method for score in one.scores):
            texts = [f"{f.metric} {f.mean.value:.3g}{_interval(f)}" for f in totals if f.method == method]
            texts += [f"{d.metric} {d.value:.3g} ({d.pictures} pictures)" for d in one.distances if d.method == method]
            if reasons := one.missing.get(method):
                texts.append(f"{len(reasons)} pictures missing, the first: {reasons[0]}")
            lines.append(f"{one.scored.title}, {method}: {', '.join(texts)}")
    return lines


def _interval(figure: Figure) -> str:
    low, high = figure.mean.low, figure.mean.high
    return "" if low is None or high is None else f" [{low:.3g}, {high:.3g}]"


def _metric_names(results: Sequence[Results]) -> list[str]:
    return list(dict.fromkeys(metric.name for one in results for metric in one.picture_metrics))


def _mean(group: Sequence[ViewScore], metric: str) -> object:
    values = [value for score in group if (value := score.value(metric)) is not None]
    return _cell(float(np.mean(values))) if values else ""


def _cell(value: object) -> object:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else value
