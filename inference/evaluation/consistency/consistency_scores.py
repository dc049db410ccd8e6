"""Define the consistency scores of an object and method, keep them as files, and average them over objects."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from inference.evaluation.measures import mean_over_objects
from inference.evaluation.scores import Figure
from pipeline.output import json_object
from pipeline.storage import write_atomically


@dataclass(frozen=True)
class ConsistencyScore:
    """The agreement of the fields of the two halves of one orbit.

    Attributes:
        benchmark: Name of the benchmark that chose the input view.
        set: Name of the set.
        uid: Object.
        input: Index of the input view.
        method: Name of the method that drew the orbit.
        views: Number of views of the orbit.
        values: Scores by name; empty if there are none.
        missing: Why there are no scores; empty if there are.
        strip: Picture of the views and both fields from four sides; None if there are no scores.
    """

    benchmark: str
    set: str
    uid: str
    input: int
    method: str
    views: int
    values: Mapping[str, float]
    missing: str = ""
    strip: Path | None = None


@dataclass(frozen=True)
class KeptScores:
    """Scores that are stored in a file, so that a run can be continued.

    Attributes:
        key: Hash of all that they depend on.
        values: Scores by name.
        missing: Why there are none.
        seconds: Duration of the fits and their comparison.
    """

    key: str
    values: Mapping[str, float]
    missing: str
    seconds: float


def read_kept(path: Path, key: str) -> KeptScores | None:
    """Return the scores in a file; None if there are none of this key, or the file is damaged."""
    try:
        record = json_object(path.read_bytes())
        kept = KeptScores(
            str(record["key"]),
            {str(name): float(value) for name, value in record["values"].items()},
            str(record["missing"]),
            float(record["seconds"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return kept if kept.key == key else None


def write_kept(path: Path, kept: KeptScores) -> None:
    """Write scores into a file, atomically."""
    write_atomically(str(path), json.dumps(asdict(kept), indent=1).encode())


def consistency_figures(scores: Sequence[ConsistencyScore]) -> list[Figure]:
    """Return the means over objects of every table, method and score, and the first method minus each other one.

    Objects without scores are in no mean, those that only one of two methods has in no difference: a method could
    otherwise gain by failing at objects that are difficult.
    """
    tables: dict[tuple[str, str], dict[str, list[ConsistencyScore]]] = {}
    for score in scores:
        tables.setdefault((score.benchmark, score.set), {}).setdefault(score.method, []).append(score)
    figures = list[Figure]()
    for table, methods in tables.items():
        subject, *others = methods
        for method, own in methods.items():
            for metric, values in _by_metric(own).items():
                figures.append(_figure(table, method, "", metric, list(values.values()), own[0].views))
        of_subject = _by_metric(methods[subject])
        for method in others:
            for metric, values in _by_metric(methods[method]).items():
                minuends = of_subject.get(metric, {})
                differences = [minuends[uid] - value for uid, value in values.items() if uid in minuends]
                if differences:
                    figures.append(_figure(table, subject, method, metric, differences, methods[method][0].views))
    return figures


def _by_metric(scores: Sequence[ConsistencyScore]) -> dict[str, dict[str, float]]:
    """Return the values of each score by object."""
    found: dict[str, dict[str, float]] = {}
    for score in scores:
        for metric, value in score.values.items():
            found.setdefault(metric, {})[score.uid] = value
    return found


def _figure(
    table: tuple[str, str], method: str, minus: str, metric: str, values: Sequence[float], views: int
) -> Figure:
    count = len(values)
    return Figure(*table, method, minus, metric, "", None, count, count * views, mean_over_objects(values))


def missing_scores(scores: Sequence[ConsistencyScore]) -> list[dict[str, object]]:
    """Return for each table and method with missing scores their number, and the first object and reason."""
    groups: dict[tuple[str, str, str], list[ConsistencyScore]] = {}
    for score in scores:
        if score.missing:
            groups.setdefault((score.benchmark, score.set, score.method), []).append(score)
    return [
        {
            "benchmark": benchmark, "set": name, "method": method,
            "objects": len(group), "uid": group[0].uid, "reason": group[0].missing,
        }
        for (benchmark, name, method), group in groups.items()
    ]  # fmt: skip
