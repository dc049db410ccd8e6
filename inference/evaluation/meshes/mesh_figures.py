"""Aggregate the scores of meshes: means over objects, and differences between methods."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from inference.evaluation.measures import Mean, mean_over_objects
from inference.evaluation.meshes.definitions import ALIGNMENTS, SCORES
from inference.evaluation.meshes.object_scores import MeshRow


@dataclass(frozen=True)
class MeshFigure:
    """A mean over objects.

    Attributes:
        method: Name of the method.
        minus: Name of the method whose scores of the same objects are subtracted; empty for none.
        alignment: Name of the alignment.
        score: Name of the score.
        mean: The mean, and its 95 % interval.
        objects: Number of objects that the mean is over.
        missing: Number of objects without this score, which the mean leaves out.
    """

    method: str
    minus: str
    alignment: str
    score: str
    mean: Mean
    objects: int
    missing: int

    @property
    def record(self) -> dict[str, Any]:
        """Return the figure for metrics.json."""
        names = ("method", "minus", "alignment", "score")
        return {
            **{name: getattr(self, name) for name in names},
            **asdict(self.mean),
            "objects": self.objects,
            "missing": self.missing,
        }


def mesh_figures(rows: Sequence[MeshRow], methods: Sequence[str], uids: Sequence[str]) -> list[MeshFigure]:
    """Return the means of every method, alignment and score, and those of the differences from the first method.

    A score that no object has gives no figure. A difference is over the objects that both methods have.
    """
    values = {(row.method, row.alignment, name, row.uid): value for row in rows for name, value in row.scores.items()}

    def column(method: str, alignment: str, score: str) -> dict[str, float]:
        keys = ((uid, (method, alignment, score, uid)) for uid in uids)
        return {uid: values[key] for uid, key in keys if key in values}

    def all_figures() -> Iterator[MeshFigure]:
        for alignment in ALIGNMENTS:
            for score in (one.name for one in SCORES):
                first = column(methods[0], alignment, score)
                for method in methods:
                    own = column(method, alignment, score)
                    if own:
                        yield _figure(method, "", alignment, score, list(own.values()), len(uids))
                    if method != methods[0] and (common := own.keys() & first.keys()):
                        differences = [own[uid] - first[uid] for uid in sorted(common)]
                        yield _figure(method, methods[0], alignment, score, differences, len(uids))

    return list(all_figures())


def _figure(method: str, minus: str, alignment: str, score: str, values: list[float], objects: int) -> MeshFigure:
    return MeshFigure(method, minus, alignment, score, mean_over_objects(values), len(values), objects - len(values))
