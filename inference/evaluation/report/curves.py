"""Plot scores over the angle between the cameras."""

import io
from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.figure import Figure as Drawing

from inference.evaluation.report.columns import Column, colours_of, labels_of
from inference.evaluation.results import Results
from inference.evaluation.scores import Figure

ANGLES = (("angle", "angle between the cameras, degrees"), ("azimuth_change", "azimuth change, degrees"))


def curves(results: Results, columns: Sequence[Column]) -> str:
    """Return drawings of the metrics over both angles."""
    labels, drawings = labels_of(results), []
    for by, label in ANGLES:
        for column in columns:
            binned = [figure for figure in results.figures if figure.by == by and figure.metric == column.metric]
            if column.curve and binned:
                drawings.append(
                    f"<div class='paper'>{_curve(binned, column, label, labels, results.scored.subject)}</div>"
                )
    return f"<div class='curves'>{''.join(drawings)}</div>"


def _curve(binned: Sequence[Figure], column: Column, x_label: str, labels: Mapping[str, str], subject: str) -> str:
    drawing = Drawing(figsize=(4.6, 3.4), layout="constrained")
    axes, colours = drawing.add_subplot(), colours_of(dict(labels))
    for method, label in labels.items():
        own = [figure for figure in binned if figure.method == method]
        if not own:
            continue
        centres = [sum(figure.bin) / 2 for figure in own if figure.bin]
        axes.plot(
            centres, [column.factor * f.mean.value for f in own], label=label, color=colours[method],
            linewidth=2.2 if method == subject else 1.2, marker="o", markersize=3,
        )  # fmt: skip
        if method == subject and all(figure.mean.low is not None for figure in own):
            lows = [column.factor * (figure.mean.low or 0.0) for figure in own]
            highs = [column.factor * (figure.mean.high or 0.0) for figure in own]
            axes.fill_between(centres, lows, highs, color=colours[method], alpha=0.15, linewidth=0)
    y_label = f"{column.label},{column.unit}" if column.unit else column.label
    axes.set(xlabel=x_label, ylabel=y_label, xlim=(0, 180), xticks=range(0, 181, 30))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    drawing.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=6.5)
    # Keep text as text, and the same ids in each run.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": f"{x_label} {column.label}"}):
        svg = io.StringIO()
        drawing.savefig(svg, format="svg", metadata={"Date": None})
    return svg.getvalue()[svg.getvalue().index("<svg") :]
