"""Describe how the metrics and methods of a table are shown."""

from dataclasses import dataclass

from inference.evaluation.results import Results
from inference.evaluation.scores import Figure

# Colours of Okabe and Ito, which people with colour blindness tell apart; the first is for the subject.
COLOURS = ("#0072b2", "#d55e00", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#999999", "#7a5c00", "#8a2be2")
TRUTH_COLOUR = "#222222"
METRIC_CURVES = 3  # the first metrics of a table


@dataclass(frozen=True)
class Column:
    """A metric as a column of a table.

    Attributes:
        metric: Its name.
        label: Its display name, with the unit.
        form: Format of its values.
        factor: What its values are multiplied by.
        unit: Text after each value.
        curve: Whether its values are drawn over the angle.
    """

    metric: str
    label: str
    form: str = ".3f"
    factor: float = 1.0
    unit: str = ""
    curve: bool = False

    def text(self, figure: Figure | None, sign: str = "") -> str:
        """Return the mean of a figure and its interval; a dash without a figure."""
        if figure is None:
            return "–"
        mean, form = figure.mean, f"{sign}{self.form}"
        value = f"{self.factor * mean.value:{form}}{self.unit}"
        if mean.low is None or mean.high is None:
            return value
        return f"{value} [{self.factor * mean.low:{form}}, {self.factor * mean.high:{form}}]"


def columns_of(results: Results) -> list[Column]:
    """Return the columns of a table: its picture metrics, and the pose metrics if there are references."""
    columns = [
        Column(metric.name, metric.label, ".2f" if metric.name == "psnr_db" else ".3f", curve=number < METRIC_CURVES)
        for number, metric in enumerate(results.picture_metrics)
    ]
    columns += [
        Column("pose_within_20", "pose within 20°", ".0f", 100.0, " %", curve=True),
        Column("pose_within_20_clear", "of clear views", ".0f", 100.0, " %"),
    ]
    found = {figure.metric for figure in results.figures}
    return [column for column in columns if column.metric in found]


def labels_of(results: Results) -> dict[str, str]:
    """Return the display names of the methods of a table, in its order, the true views first."""
    labels = {"truth": "true view"}
    for method in results.scored.methods:
        labels |= {method.name: method.label, f"{method.name}_best": f"{method.label}, best sample"}
    found = {score.method for score in results.scores}
    return {name: label for name, label in labels.items() if name in found}


def colours_of(labels: dict[str, str]) -> dict[str, str]:
    """Return a colour for each method of `labels_of`."""
    others = [name for name in labels if name != "truth"]
    return {"truth": TRUTH_COLOUR} | {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(others)}
