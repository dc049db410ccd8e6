"""Show rows of pictures: the best, the median and the worst views of the subject."""

from collections.abc import Mapping, Sequence
from html import escape

from inference.evaluation.methods.method import MissingPicture, resized
from inference.evaluation.report.columns import Column, labels_of
from inference.evaluation.results import Results
from inference.evaluation.scores import View, ViewScore
from inference.views.media import png
from pipeline.html import picture

ROWS = 4  # of the best, the median and the worst views each
MAX_SIDE_PX = 160  # of a picture in the page


def picture_rows(results: Results, columns: Sequence[Column]) -> str:
    """Return the best, the median and the worst views by the subject's first metric, at most one of each object."""
    if not columns:
        return ""
    metric = columns[0]
    higher = {one.name: one.higher_is_better for one in results.picture_metrics}.get(metric.metric, True)
    own = [s for s in results.scores if s.method == results.scored.subject and s.sample == 0 and not s.missing]
    ranked = sorted(own, key=lambda score: (score.value(metric.metric) or 0) * (-1 if higher else 1))
    values = {(s.view, s.method): s.value(metric.metric) for s in results.scores if not s.sample}
    middle = len(ranked) // 2
    around = [score for _, score in sorted(enumerate(ranked), key=lambda item: abs(item[0] - middle))]
    count = max(1, min(ROWS, len(results.scored.objects) // 3))
    parts, used = {"Best": "", "Median": "", "Worst": ""}, set[str]()
    for title, order in (("Best", ranked), ("Worst", ranked[::-1]), ("Median", around)):
        rows = list[str]()
        for score in order:
            if len(rows) < count and score.uid not in used:
                used.add(score.uid)
                rows.append(_row(results, score, metric, values))
        if rows:
            parts[title] = f"<h3>{title}</h3>{''.join(rows)}"
    return "".join(parts.values())


def _row(results: Results, score: ViewScore, metric: Column, values: Mapping[tuple[View, str], float | None]) -> str:
    scored, labels = results.scored, labels_of(results)
    one = next(one for one in scored.objects if one.uid == score.uid)
    pair = next(pair for pair in one.pairs if (pair.input, pair.target) == (score.input, score.target))
    side = min(scored.resolution, MAX_SIDE_PX)
    cells = [("input", one.picture(pair.input, side), ""), ("truth", one.picture(pair.target, side), "")]
    for method in scored.methods:
        if method.name == "repeat":
            continue
        try:
            pixels = resized(method.pictures(one, pair)[0], side)
        except MissingPicture:
            continue
        value = values.get((score.view, method.name))
        cells.append(
            (labels[method.name], pixels, "" if value is None else f"<br>{metric.factor * value:{metric.form}}")
        )
    boxes = "".join(
        f"<div>{picture(png(pixels), 'png', f'{one.uid}: {label}')}{escape(label)}{text}</div>"
        for label, pixels, text in cells
    )
    caption = f"<b>{escape(one.uid)}</b> {score.angle_degrees:.0f}° between the cameras, {escape(metric.label)}"
    return f"<figure><div class='pair'>{boxes}</div><figcaption>{caption}</figcaption></figure>"
