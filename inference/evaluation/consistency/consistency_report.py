"""Write the consistency of orbits: consistency.csv, its part of metrics.json, and its section of the page."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

from inference.evaluation.consistency.consistency_scores import ConsistencyScore, consistency_figures, missing_scores
from inference.evaluation.consistency.field_comparison import POINTS, SETTINGS
from inference.evaluation.metrics.metric import PictureMetric
from inference.evaluation.report.columns import Column
from inference.evaluation.scored_set import ScoredSet
from inference.evaluation.scores import Figure
from pipeline.csv_file import csv_file
from pipeline.html import picture, table
from pipeline.storage import write_atomically

FIELDS = ("benchmark", "set", "uid", "input", "method", "views", "missing")
SHOWN_OBJECTS = 6  # of a table, spread over the scores of its first method
OTHER_SCORES = {
    "chamfer": f"half the sum of the mean distances between {POINTS} random points of both surfaces and the nearest "
    "points of the other, object sizes",
    "views_psnr_db": "PSNR of each view, rendered from the field that was fitted to the half without it",
    "pose_within_20": "share of the orbit's views whose nearest reference lies within 20 degrees of their camera",
}
OTHER_COLUMNS = (
    Column("chamfer", "Chamfer", ".4f"),
    Column("views_psnr_db", "unseen views, dB", ".2f"),
    Column("pose_within_20", "views within 20°", ".0f", 100.0, " %"),
)


@dataclass(frozen=True)
class ConsistencyReport:
    """The results of the consistency of orbits, as they are written; all are empty without scores.

    Attributes:
        record: Entry `consistency` of metrics.json.
        table: Contents of consistency.csv, one row for each object and method.
        sections: HTML for the page.
        summary: A line for each table and method.
    """

    record: dict[str, Any]
    table: bytes
    sections: str
    summary: Sequence[str]

    def write(self, output: Path) -> None:
        """Write consistency.csv, or delete that of an earlier run, and print the means."""
        path = output / "consistency.csv"
        if self.table:
            write_atomically(str(path), self.table)
        else:
            path.unlink(missing_ok=True)
        for line in self.summary:
            print(line)


def report_consistency(
    scores: Sequence[ConsistencyScore], metrics: Sequence[PictureMetric], sets: Sequence[ScoredSet]
) -> ConsistencyReport:
    """Return what an evaluation writes about some scores.

    Args:
        scores: Result of `score_consistency`.
        metrics: Metrics of the renders.
        sets: The sets with their methods.
    """
    if not scores:
        return ConsistencyReport({}, b"", "", [])
    sections = _sections(scores, metrics, sets)
    return ConsistencyReport(_record(scores, metrics), _table(scores), sections, _summary(scores))


def _record(scores: Sequence[ConsistencyScore], metrics: Sequence[PictureMetric]) -> dict[str, Any]:
    definitions = {metric.name: f"{metric.definition}; of renders of both fields" for metric in metrics}
    return {
        "consistency": {
            "views": scores[0].views,
            "fit": asdict(SETTINGS),
            "definitions": definitions | OTHER_SCORES,
            "figures": [figure.record for figure in consistency_figures(scores)],
            "missing": missing_scores(scores),
        }
    }


def _table(scores: Sequence[ConsistencyScore]) -> bytes:
    names = list(dict.fromkeys(name for score in scores for name in score.values))
    return csv_file(
        [*FIELDS, *names],
        (
            [
                *(getattr(score, name) for name in FIELDS),
                *(f"{score.values[name]:.6g}" if name in score.values else "" for name in names),
            ]
            for score in scores
        ),
    )


def _summary(scores: Sequence[ConsistencyScore]) -> list[str]:
    missing = {(one["benchmark"], one["set"], one["method"]): one for one in missing_scores(scores)}
    lines: dict[tuple[object, object, object], list[str]] = {
        (score.benchmark, score.set, score.method): [] for score in scores
    }
    for figure in (figure for figure in consistency_figures(scores) if not figure.minus):
        lines[figure.benchmark, figure.set, figure.method].append(f"{figure.metric} {figure.mean.value:.3g}")
    for key, one in missing.items():
        lines[key].append(f"{one['objects']} objects missing, the first: {one['reason']}")
    return [f"{key[1]}, orbits by {key[2]}: {', '.join(parts)}" for key, parts in lines.items()]


def _sections(scores: Sequence[ConsistencyScore], metrics: Sequence[PictureMetric], sets: Sequence[ScoredSet]) -> str:
    columns = [Column(one.name, f"c{one.label}", ".2f" if one.name == "psnr_db" else ".3f") for one in metrics]
    figures, parts = consistency_figures(scores), [_introduction(scores[0].views)]
    for scored in sets:
        own = [score for score in scores if (score.benchmark, score.set) == (scored.benchmark.name, scored.name)]
        means = [figure for figure in figures if (figure.benchmark, figure.set) == (scored.benchmark.name, scored.name)]
        labels = {method.name: method.label for method in scored.methods}
        labels = {name: labels.get(name, name) for name in dict.fromkeys(score.method for score in own)}
        shown = [column for column in (*columns, *OTHER_COLUMNS) if any(f.metric == column.metric for f in means)]
        parts += [f"<h3>{escape(scored.title)}</h3>", _score_table(means, own, labels, shown), _missing(own, labels)]
        parts += [_difference_table(means, labels, shown), _strips(own, labels)]
    return "".join(parts)


def _introduction(views: int) -> str:
    return (
        f"<h2>Consistency of orbits</h2><p>Each method draws an orbit of {views} views from one input view. One field "
        "is fitted to its even views, another to its odd views, without truth and without the input picture; scores "
        "that begin with c compare renders of the two fields halfway between the views, Chamfer their surfaces. They "
        "reward any views that agree with each other, right or wrong: a method that repeats its input for every camera "
        "agrees with itself. Read them beside the columns that follow: how well the field of the other half predicts "
        "the views, and, where there are references, whether the views show their cameras.</p>"
    )


def _score_table(
    means: Sequence[Figure],
    scores: Sequence[ConsistencyScore],
    labels: dict[str, str],
    columns: Sequence[Column],
) -> str:
    found = {(figure.method, figure.metric): figure for figure in means if not figure.minus}
    rows = []
    for method, label in labels.items():
        own = [score for score in scores if score.method == method]
        compared = sum(not score.missing for score in own)
        cells = [column.text(found.get((method, column.metric))) for column in columns]
        rows.append([label, f"{compared} of {len(own)}", *cells])
    return f"<div class='wide scores'>{table(['method', 'objects', *(column.label for column in columns)], rows)}</div>"


def _difference_table(means: Sequence[Figure], labels: dict[str, str], columns: Sequence[Column]) -> str:
    """Return the differences between the first method and each other one, over the objects that both have."""
    found = {(figure.minus, figure.metric): figure for figure in means if figure.minus}
    rows = []
    for method, label in labels.items():
        if objects := [figure.objects for (minus, _), figure in found.items() if minus == method]:
            cells = [column.text(found.get((method, column.metric)), sign="+") for column in columns]
            rows.append([label, min(objects), *cells])
    if not rows:
        return ""
    head = [f"{next(iter(labels.values()))} minus", "objects of both", *(column.label for column in columns)]
    return f"<div class='wide scores'>{table(head, rows)}</div>"


def _missing(scores: Sequence[ConsistencyScore], labels: dict[str, str]) -> str:
    return "".join(
        f"<p><b>{escape(labels[str(one['method'])])}</b>: no scores of {one['objects']} objects, the first "
        f"{escape(str(one['uid']))}, because {escape(str(one['reason']))}. The means are of the others.</p>"
        for one in missing_scores(scores)
    )


def _strips(scores: Sequence[ConsistencyScore], labels: dict[str, str]) -> str:
    """Return the pictures of some objects: the views of four sides, and below them both fields, for each method."""
    first = next(iter(labels), "")
    ranked = sorted(
        (score for score in scores if score.method == first and not score.missing),
        key=lambda score: -score.values.get("psnr_db", 0.0),
    )
    count = min(SHOWN_OBJECTS, len(ranked))
    chosen = [ranked[round(i * (len(ranked) - 1) / max(1, count - 1))].uid for i in range(count)]
    figures = []
    for uid in chosen:
        own = {score.method: score for score in scores if score.uid == uid and score.strip is not None}
        boxes = "".join(
            f"<div>{picture(score.strip.read_bytes(), 'png', f'{uid}: {labels[method]}')}{escape(labels[method])}"
            f"<br>{score.values['psnr_db']:.2f} dB</div>"
            for method, score in own.items()
            if score.strip is not None
        )
        figures.append(
            f"<figure><div class='strips'>{boxes}</div><figcaption><b>{escape(uid)}</b></figcaption></figure>"
        )
    if not figures:
        return ""
    return (
        f"<p class='soft'>Views of four sides; field of the even views; field of the odd views.</p>{''.join(figures)}"
    )
