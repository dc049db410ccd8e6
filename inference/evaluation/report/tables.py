"""Write tables of scores, of published scores, and of differences between methods."""

from collections.abc import Sequence
from html import escape

from inference.evaluation.report.columns import Column, labels_of
from inference.evaluation.results import Results
from pipeline.html import table


def score_table(results: Results, columns: Sequence[Column]) -> str:
    """Return the means of each method, with the distances between sets of pictures."""
    totals = {(f.method, f.metric): f for f in results.figures if not f.by and not f.minus}
    distances = {(d.method, d.metric): f"{d.value:.4g} ({d.pictures} pictures)" for d in results.distances}
    head = ["method", *(column.label for column in columns), *(metric.label for metric in results.set_metrics)]
    rows = [
        [
            label,
            *(column.text(totals.get((method, column.metric))) for column in columns),
            *(distances.get((method, metric.name), "–") for metric in results.set_metrics),
        ]
        for method, label in labels_of(results).items()
        if any(key[0] == method for key in (*totals, *distances))
    ]
    return f"<div class='wide scores'>{table(head, rows)}</div>"


def published_table(results: Results, columns: Sequence[Column]) -> str:
    """Return the published scores of the benchmark; without a table if this run differs from its protocol."""
    published = results.scored.benchmark.published
    if not published:
        return ""
    if results.deviations or results.missing:
        return (
            "<p class='soft'>Published scores are not shown beside these, since this table differs from their protocol."
            "</p>"
        )
    metrics = {metric.name: metric.label for metric in results.picture_metrics}
    metrics |= {metric.name: metric.label for metric in results.set_metrics}
    shown = [name for name in metrics if any(name in one.scores for one in published)]
    rows = [[one.method, *(_number(one.scores.get(name)) for name in shown), one.source] for one in published]
    head = ["published", *(metrics[name] for name in shown), "source"]
    return f"<div class='wide scores'>{table(head, rows)}</div>"


def difference_table(results: Results, columns: Sequence[Column]) -> str:
    """Return the differences between the subject and each other method, over the views that both have."""
    labels = labels_of(results)
    differences = {(f.minus, f.metric): f for f in results.figures if f.minus}
    shown = [column for column in columns if any(key[1] == column.metric for key in differences)]
    rows = [
        [label, *(column.text(differences.get((method, column.metric)), sign="+") for column in shown)]
        for method, label in labels.items()
        if any(key[0] == method for key in differences)
    ]
    if not rows:
        return ""
    head = [f"{escape(labels[results.scored.subject])} minus", *(column.label for column in shown)]
    return f"<div class='wide scores'>{table(head, rows)}</div>"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:g}"
