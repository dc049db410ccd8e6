"""Write the results of an evaluation: per_view.csv, per_object.csv, metrics.json and report.html."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from inference.evaluation.config import EvaluateConfig, set_name
from inference.evaluation.measures import CONFIDENCE, MAX_PSNR_DB, RESAMPLES
from inference.evaluation.page import report
from inference.evaluation.predictions import ScoredSet
from inference.evaluation.scores import METRICS, POSE_WITHIN_DEGREES, Figure, ViewScore, figures
from inference.evaluation.selection import Selection
from pipeline.csv_file import csv_file
from pipeline.storage import write_atomically

# Everything that a figure depends on, beside the plan of the run.
PROTOCOL = {
    "protocol": "folder",
    "background": "views composited on white, 8 bits",
    "psnr": f"over all pixels and channels, dB, at most {MAX_PSNR_DB:g}",
    "ssim": "scikit-image, Gaussian window, sigma 1.5, 11 pixels, range 255, mean of the channels",
    "pose_within_20": f"share of pictures whose nearest reference lies within {POSE_WITHIN_DEGREES:g} degrees",
    "pose_within_20_clear": "pose_within_20, over pairs whose true view lies within that angle",
    "average": "mean over objects of the mean over their pairs",
    "interval": f"{CONFIDENCE:.0%} percentile bootstrap over objects, {RESAMPLES} resamples",
}


def write_results(
    config: EvaluateConfig,
    plan: Mapping[str, Any],
    sets: Sequence[ScoredSet],
    scores: Sequence[ViewScore],
    missing: Sequence[str],
) -> dict[str, Any]:
    """Write all files of the results; return the contents of metrics.json.

    Args:
        config: Options of the command.
        plan: What the predictions depend on.
        sets: Objects and pictures of each set.
        scores: Score of every picture.
        missing: Sentences about parts that are left out.
    """
    output, all_figures = Path(config.output), figures(scores)
    metrics = {
        **plan,
        "checkpoint": config.checkpoint,
        "views": config.views,
        "splits": config.splits,
        "training": config.training,
        "references": config.references,
        "limit": config.limit,
        "settings": PROTOCOL,
        "left_out": missing,
        "figures": [figure.record for figure in all_figures],
    }
    write_atomically(str(output / "per_view.csv"), view_table(scores))
    write_atomically(str(output / "per_object.csv"), object_table(scores))
    write_atomically(str(output / "report.html"), report(metrics, sets, scores, all_figures))
    write_atomically(str(output / "metrics.json"), (json.dumps(metrics, indent=1) + "\n").encode())
    for line in [*missing, *summary(all_figures)]:
        print(line)
    print(f"report: {output / 'report.html'}")
    return metrics


def left_out(config: EvaluateConfig, selections: Sequence[Selection], references: Collection[str]) -> list[str]:
    """Return a sentence for each part of the evaluation that is left out.

    Args:
        config: Options of the command.
        selections: The sets that have objects to score.
        references: Names of the sets that have references.
    """
    names = {selection.name for selection in selections}
    sentences = []
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


def view_table(scores: Sequence[ViewScore]) -> bytes:
    """Return per_view.csv: one row for each picture."""
    names = [field.name for field in fields(ViewScore)]
    return csv_file(names, ([_cell(getattr(score, name)) for name in names] for score in scores))


def object_table(scores: Sequence[ViewScore]) -> bytes:
    """Return per_object.csv: the means of each object and method."""
    groups: dict[tuple[str, str, str], list[ViewScore]] = {}
    for score in scores:
        groups.setdefault((score.set, score.uid, score.method), []).append(score)
    rows = ([*key, len(group), *(_mean(group, metric) for metric in METRICS)] for key, group in groups.items())
    return csv_file(["set", "uid", "method", "views", *METRICS], rows)


def summary(all_figures: Sequence[Figure]) -> list[str]:
    """Return a line for each set and method: the means over all pairs."""
    lines: dict[tuple[str, str], list[str]] = {}
    for figure in all_figures:
        if not figure.by and not figure.minus:
            low, high = figure.mean.low, figure.mean.high
            interval = "" if low is None or high is None else f" [{low:.3g}, {high:.3g}]"
            lines.setdefault((figure.set, figure.method), []).append(
                f"{figure.metric} {figure.mean.value:.3g}{interval}"
            )
    return [f"{name}, {method}: {', '.join(texts)}" for (name, method), texts in lines.items()]


def _mean(group: Sequence[ViewScore], metric: str) -> object:
    values = [getattr(score, metric) for score in group if getattr(score, metric) is not None]
    return _cell(float(np.mean(values))) if values else ""


def _cell(value: object) -> object:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else value
