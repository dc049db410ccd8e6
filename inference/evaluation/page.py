"""Write the page of an evaluation: a table for each set, scores by angle, and rows of pictures."""

import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import matplotlib
from matplotlib.figure import Figure as Drawing

from inference.evaluation.pairs import Pair
from inference.evaluation.predictions import ScoredSet
from inference.evaluation.scores import Figure, ViewScore
from inference.evaluation.selection import ScoredObject
from inference.views.media import png
from pipeline.html import page, picture, table

LABELS = {
    "truth": "true view",
    "model": "model",
    "wrong_pose": "model, wrong pose",
    "no_pose": "model, no pose",
    "nearest": "nearest training object",
    "mean": "mean training view",
    "repeat": "repeat the input",
}
METRIC_LABELS = {
    "psnr_db": "PSNR, dB",
    "ssim": "SSIM",
    "pose_within_20": "pose within 20°",
    "pose_within_20_clear": "of clear views",
}
CURVES = ("psnr_db", "ssim", "pose_within_20")
COLOURS = {
    "truth": "#222222",
    "model": "#0072b2",
    "wrong_pose": "#d55e00",
    "no_pose": "#e69f00",
    "nearest": "#009e73",
    "mean": "#999999",
    "repeat": "#cc79a7",
}
ROWS = 4  # of the best, the median and the worst pictures each
STYLE = """<style>
.wide { overflow-x: auto; } .scores td, .scores th { white-space: nowrap; }
.pair { display: grid; grid-auto-flow: column; grid-auto-columns: minmax(84px, 150px); gap: 3px; overflow-x: auto; }
.pair div { background: #fff; color: #6b7075; border: 1px solid var(--line); border-radius: 6px; overflow: hidden;
            text-align: center; font-size: .7rem; line-height: 1.3; padding-bottom: .2rem; }
.pair img { width: 100%; display: block; aspect-ratio: 1; }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 1rem; }
</style>"""


def report(
    metrics: Mapping[str, Any], sets: Sequence[ScoredSet], scores: Sequence[ViewScore], figures: Sequence[Figure]
) -> bytes:
    """Return the page.

    Args:
        metrics: Contents of metrics.json.
        sets: Objects and pictures of each set.
        scores: Score of every picture.
        figures: Means and intervals.
    """
    body = [STYLE, "<h1>Scores of novel views</h1>", _introduction(metrics)]
    for scored in sets:
        own = [figure for figure in figures if figure.set == scored.name]
        body += [
            f"<h2>{escape(scored.name)}</h2>",
            _table(own),
            _differences(own),
            _curves(own),
            _pictures(scored, [score for score in scores if score.set == scored.name]),
        ]
    body += ["<h2>Settings</h2>", _settings(metrics)]
    return page("Zero-1-to-3: scores", "\n".join(body), "inference.evaluate")


def _introduction(metrics: Mapping[str, Any]) -> str:
    sentences = "".join(f"<p class='soft'>{escape(text)}</p>" for text in metrics["left_out"])
    return (
        f"<p>Checkpoint <b>{escape(str(metrics['checkpoint']))}</b>, weights {escape(str(metrics['weights']))}. "
        "From one view of an object, another is sampled and compared with the true one. Means are over objects; in "
        "brackets their 95 % intervals. The pose that a picture shows is the camera of the most similar render of the "
        f"object from a grid of cameras; a view is clear if its true picture shows it within 20°.</p>{sentences}"
    )


def _table(figures: Sequence[Figure]) -> str:
    totals = {(f.method, f.metric): f for f in figures if not f.by and not f.minus}
    shown = [metric for metric in METRIC_LABELS if any(key[1] == metric for key in totals)]
    rows = [
        [LABELS[method], *(_text(totals.get((method, metric))) for metric in shown)]
        for method in LABELS
        if any(key[0] == method for key in totals)
    ]
    objects, views = totals["model", "psnr_db"].objects, totals["model", "psnr_db"].views
    head = ["method", *(METRIC_LABELS[metric] for metric in shown)]
    return f"<p class='soft'>{objects} objects, {views} pairs</p><div class='wide scores'>{table(head, rows)}</div>"


def _differences(figures: Sequence[Figure]) -> str:
    differences = {(f.minus, f.metric): f for f in figures if f.minus}
    shown = [metric for metric in METRIC_LABELS if any(key[1] == metric for key in differences)]
    rows = [
        [LABELS[method], *(_text(differences.get((method, metric)), sign="+") for metric in shown)]
        for method in LABELS
        if any(key[0] == method for key in differences)
    ]
    head = ["model minus", *(METRIC_LABELS[metric] for metric in shown)]
    return f"<div class='wide scores'>{table(head, rows)}</div>"


def _text(figure: Figure | None, sign: str = "") -> str:
    if figure is None:
        return "–"
    mean = figure.mean
    if figure.metric.startswith("pose_within_20"):
        value, low, high = (None if x is None else 100 * x for x in (mean.value, mean.low, mean.high))
        form = f"{sign}.0f"
        unit = " %"
    else:
        value, low, high = mean.value, mean.low, mean.high
        form = f"{sign}.2f" if figure.metric == "psnr_db" else f"{sign}.3f"
        unit = ""
    interval = "" if low is None or high is None else f" [{low:{form}}, {high:{form}}]"
    return f"{value:{form}}{unit}{interval}"


def _curves(figures: Sequence[Figure]) -> str:
    drawings = []
    for by, label in (("angle", "angle between the cameras, degrees"), ("azimuth_change", "azimuth change, degrees")):
        for metric in CURVES:
            binned = [figure for figure in figures if figure.by == by and figure.metric == metric]
            if binned:
                drawings.append(f"<div class='paper'>{_curve(binned, label, METRIC_LABELS[metric])}</div>")
    return f"<div class='curves'>{''.join(drawings)}</div>"


def _curve(binned: Sequence[Figure], x_label: str, y_label: str) -> str:
    drawing = Drawing(figsize=(4.6, 3.4), layout="constrained")
    axes = drawing.add_subplot()
    for method in LABELS:
        own = [figure for figure in binned if figure.method == method]
        if not own:
            continue
        centres = [sum(figure.bin) / 2 for figure in own if figure.bin]
        axes.plot(
            centres, [f.mean.value for f in own], label=LABELS[method], color=COLOURS[method],
            linewidth=2.2 if method == "model" else 1.2, marker="o", markersize=3,
        )  # fmt: skip
        if method == "model" and all(figure.mean.low is not None for figure in own):
            lows, highs = [f.mean.low or 0.0 for f in own], [f.mean.high or 0.0 for f in own]
            axes.fill_between(centres, lows, highs, color=COLOURS[method], alpha=0.15, linewidth=0)
    axes.set(xlabel=x_label, ylabel=y_label, xlim=(0, 180), xticks=range(0, 181, 30))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    drawing.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=6.5)
    # Keep text as text, and the same ids in each run.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": f"{x_label} {y_label}"}):
        svg = io.StringIO()
        drawing.savefig(svg, format="svg", metadata={"Date": None})
    return svg.getvalue()[svg.getvalue().index("<svg") :]


def _pictures(scored: ScoredSet, scores: Sequence[ViewScore]) -> str:
    """Return rows of pictures: the best, the median and the worst pairs by the model's PSNR, one of an object each."""
    objects = {one.uid: one for one in scored.objects}
    ranked = sorted((s for s in scores if s.method == "model"), key=lambda s: -(s.psnr_db or 0))
    psnr = {(s.uid, s.pair, s.method): s.psnr_db for s in scores}
    middle = len(ranked) // 2
    around = [score for _, score in sorted(enumerate(ranked), key=lambda item: abs(item[0] - middle))]
    count = max(1, min(ROWS, len(objects) // 3))
    parts, used = {"Best": "", "Median": "", "Worst": ""}, set[str]()
    for title, order in (("Best", ranked), ("Worst", ranked[::-1]), ("Median", around)):
        rows = list[str]()
        for score in order:
            if len(rows) < count and score.uid not in used:
                used.add(score.uid)
                one = objects[score.uid]
                rows.append(_row(scored, one, one.pairs[score.pair], score, psnr))
        if rows:
            parts[title] = f"<h3>{title}</h3>{''.join(rows)}"
    return "".join(parts.values())


def _row(
    scored: ScoredSet,
    one: ScoredObject,
    pair: Pair,
    score: ViewScore,
    psnr: Mapping[tuple[str, int, str], float | None],
) -> str:
    cells = [("input", one.picture(pair.input)), ("truth", one.picture(pair.target))]
    cells += [(method, scored.picture(method, one, pair)) for method in LABELS if method in scored.methods]

    def label(method: str) -> str:
        decibels = psnr.get((one.uid, pair.number, method))
        return LABELS.get(method, method) + ("" if decibels is None else f"<br>{decibels:.1f} dB")

    boxes = "".join(
        f"<div>{picture(png(pixels), 'png', f'{one.uid}: {method}')}{label(method)}</div>"
        for method, pixels in cells
        if method != "repeat"
    )
    caption = f"<b>{escape(one.uid)}</b> {score.angle_degrees:.0f}° between the cameras"
    return f"<figure><div class='pair'>{boxes}</div><figcaption>{caption}</figcaption></figure>"


def _settings(metrics: Mapping[str, Any]) -> str:
    names = ("weights", "resolution", "seed", "pairs", "limit", "views", "splits", "training", "references")
    rows: Iterable[tuple[str, object]] = [
        *((name, _plain(metrics[name])) for name in names),
        *((name, value) for name, value in metrics.items() if name.startswith("sampling.")),
        *metrics["settings"].items(),
    ]
    return f"<div class='wide'>{table(['setting', 'value'], rows)}</div>"


def _plain(value: object) -> object:
    return ", ".join(map(str, value)) if isinstance(value, list) else value
