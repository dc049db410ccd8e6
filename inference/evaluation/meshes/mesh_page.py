"""Write the page of an evaluation of meshes: tables under each alignment, and pictures of the objects."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from inference.evaluation.meshes.definitions import ALIGNMENTS, SCORES
from inference.evaluation.meshes.mesh_figures import MeshFigure
from inference.evaluation.meshes.object_scores import MeshRow, result_path
from pipeline.html import page, picture, table

SHOWN_OBJECTS = 24  # all of them up to this number, else a third each of the best, middle and worst
STYLE = """<style>
.wide { overflow-x: auto; } .scores td, .scores th { white-space: nowrap; }
.objects { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 500px), 1fr)); gap: 1rem 1.5rem; }
.objects img { width: 100%; display: block; background: #fff; border: 1px solid var(--line); border-radius: 8px; }
.objects h3 { font-size: 1rem; margin: .6rem 0 .2rem; overflow-wrap: anywhere; }
</style>"""


def mesh_page(output: str, metrics: Mapping[str, Any], rows: Sequence[MeshRow], figures: Sequence[MeshFigure]) -> bytes:
    """Return the page.

    Args:
        output: Folder of the results, with the pictures.
        metrics: Contents of metrics.json.
        rows: Scores of every object, method and alignment.
        figures: Means and intervals.
    """
    objects = metrics["truth"]["objects"]
    body = [
        STYLE,
        "<h1>Scores of meshes</h1>",
        f"<p>{objects} objects. Means are over objects; in brackets are their 95 % intervals. Lengths are in object "
        "sizes. Arrows point to the better values.</p>",
        *(f"<p class='soft'>{escape(note)}</p>" for note in metrics["notes"]),
    ]
    for alignment, text in ALIGNMENTS.items():
        own = [figure for figure in figures if figure.alignment == alignment]
        body += [
            f"<h2>Alignment: {alignment}</h2><p class='soft'>{escape(text[0].upper() + text[1:])}.</p>",
            _table(own, metrics, alignment),
        ]
    body += ["<h2>Objects</h2>", _objects(output, metrics, rows), _reasons(metrics), "<h2>Definitions</h2>"]
    settings = [
        *((f"{score.label} ({score.name})", score.definition) for score in SCORES),
        *metrics["settings"].items(),
    ]
    folders = [(name, f"{one['folder']} (up: {one['up']})") for name, one in metrics["methods"].items()]
    body.append(f"<div class='wide'>{table(['score', 'definition'], [*settings, *folders])}</div>")
    return page("Zero-1-to-3: scores of meshes", "\n".join(body), "inference.evaluate")


def _table(figures: Sequence[MeshFigure], metrics: Mapping[str, Any], alignment: str) -> str:
    found = {(figure.method, figure.minus, figure.score): figure for figure in figures}
    columns = sorted({key[:2]: None for key in found}, key=lambda column: column[1])  # differences last
    published = [one for one in metrics["published"] if one["alignment"] == alignment]
    heads = [f"{method} minus {minus}" if minus else method for method, minus in columns]
    heads += [f"{one['method']}, published: {one['source']}" for one in published]
    objects = [sorted({figure.objects for key, figure in found.items() if key[:2] == column}) for column in columns]
    rows = [
        [
            "objects",
            *("-".join(map(str, counts)) for counts in objects),
            *[metrics["truth"]["objects"]] * len(published),
        ]
    ]
    for score in SCORES:
        values = [_text(found.get((*column, score.name))) for column in columns]
        others = [f"{one[score.name]:.4f}" if score.name in one else "–" for one in published]
        rows.append([f"{score.label} {'↑' if score.higher_is_better else '↓'}", *values, *others])
    return f"<div class='wide scores'>{table(['', *heads], rows)}</div>"


def _text(figure: MeshFigure | None) -> str:
    if figure is None:
        return "–"
    mean, sign = figure.mean, "+" if figure.minus else ""
    interval = "" if mean.low is None or mean.high is None else f" [{mean.low:{sign}.3g}, {mean.high:{sign}.3g}]"
    return f"{mean.value:{sign}.3g}{interval}"


def _objects(output: str, metrics: Mapping[str, Any], rows: Sequence[MeshRow]) -> str:
    methods = list(metrics["methods"])
    found = {(row.method, row.uid, row.alignment): row for row in rows}
    costs = {
        row.uid: row.scores["chamfer"]
        for row in rows
        if row.method == methods[0] and row.alignment == "icp" and row.scores
    }
    order = [*sorted(costs, key=lambda uid: (costs[uid], uid)), *sorted({row.uid for row in rows} - costs.keys())]
    if some := len(order) > SHOWN_OBJECTS:
        third, middle = SHOWN_OBJECTS // 3, len(costs) // 2
        scored = order[: len(costs)]
        order = list(dict.fromkeys([*scored[:third], *scored[max(0, middle - third // 2) :][:third], *scored[-third:]]))
    text = (
        f"{'The best, middle and worst objects' if some else 'All objects'}, by the Chamfer distance of {methods[0]} "
        "after icp. In each picture from left to right: the truth, then the prediction under the alignments none, yaw "
        "and icp, from two sides; red: 0.05 object sizes or more from the truth."
    )
    parts = [f"<p class='soft'>{escape(text)}</p><div class='objects'>"]
    for uid in order:
        parts.append(f"<div><h3>{escape(uid)}</h3>")
        for method in methods:
            parts.append(_strip(output, method, uid, [found[method, uid, alignment] for alignment in ALIGNMENTS]))
        parts.append("</div>")
    return "".join([*parts, "</div>"])


def _strip(output: str, method: str, uid: str, rows: Sequence[MeshRow]) -> str:
    path = result_path(output, method, uid, ".webp")
    image = picture(path.read_bytes(), "webp", f"{uid}, {method}") if path.is_file() else ""
    texts = [
        f"{row.alignment} {row.scores['chamfer']:.4f}"
        + (f", IoU {row.scores['iou']:.3f}" if "iou" in row.scores else "")
        for row in rows
        if row.scores
    ]
    caption = f"{method}: Chamfer {'; '.join(texts)}" if texts else f"{method}: {rows[0].reason}"
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def _reasons(metrics: Mapping[str, Any]) -> str:
    rows = [(method, uid, reason) for method, reasons in metrics["missing"].items() for uid, reason in reasons.items()]
    return (
        f"<h2>Missing scores</h2><div class='wide'>{table(['method', 'object', 'reason'], rows)}</div>" if rows else ""
    )
