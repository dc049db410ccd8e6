"""Write the results of an evaluation of meshes: per_object.csv, metrics.json and report.html."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from inference.evaluation.measures import CONFIDENCE, RESAMPLES
from inference.evaluation.meshes.definitions import ALIGNMENTS, SCORES, MeshProtocol
from inference.evaluation.meshes.mesh_figures import MeshFigure, mesh_figures
from inference.evaluation.meshes.mesh_folder import MeshFolder
from inference.evaluation.meshes.mesh_page import mesh_page
from inference.evaluation.meshes.object_scores import MeshRow
from pipeline.csv_file import csv_file
from pipeline.storage import write_atomically

SETTINGS = {
    "truth": "bounding box centred, longest side scaled to 1; z up",
    "average": "mean over objects; objects without a score are left out and counted as missing",
    "interval": f"{CONFIDENCE:.0%} percentile bootstrap over objects, {RESAMPLES} resamples",
}


def write_mesh_results(
    output: str,
    true: MeshFolder,
    methods: Sequence[MeshFolder],
    protocol: MeshProtocol | None,
    rows: Sequence[MeshRow],
) -> dict[str, Any]:
    """Write all files of the results; return the contents of metrics.json.

    Args:
        output: Folder of the results.
        true: The true meshes.
        methods: The meshes of each method.
        protocol: The published protocol, if one was chosen.
        rows: Scores of every object, method and alignment.
    """
    names, uids = [one.name for one in methods], sorted(true.files)
    order = {name: index for index, name in enumerate(names)}
    rows = sorted(rows, key=lambda row: (order[row.method], row.uid))
    figures = mesh_figures(rows, names, uids)
    published = comparable(protocol, uids)
    metrics = {
        "kind": "meshes",
        "protocol": "" if protocol is None else protocol.title,
        "truth": {"folder": true.path, "up": true.up, "objects": len(uids)},
        "methods": {one.name: {"folder": one.path, "up": one.up} for one in methods},
        "notes": notes(true, methods, protocol, rows),
        "missing": {name: missing(rows, name) for name in names},
        "scores": {score.name: score.definition for score in SCORES},
        "alignments": ALIGNMENTS,
        "settings": SETTINGS,
        "published": published,
        "figures": [figure.record for figure in figures],
    }
    folder = Path(output)
    write_atomically(str(folder / "per_object.csv"), object_table(rows))
    write_atomically(str(folder / "report.html"), mesh_page(output, metrics, rows, figures))
    write_atomically(str(folder / "metrics.json"), (json.dumps(metrics, indent=1, allow_nan=False) + "\n").encode())
    for line in [*metrics["notes"], *summary(figures)]:
        print(line)
    print(f"report: {folder / 'report.html'}")
    return metrics


def missing(rows: Sequence[MeshRow], method: str) -> dict[str, str]:
    """Return why objects of a method have no scores or not all of them, by uid."""
    return {row.uid: row.reason for row in rows if row.method == method and row.reason}


def comparable(protocol: MeshProtocol | None, uids: Sequence[str]) -> list[dict[str, Any]]:
    """Return the published figures of a protocol if the objects are all of its own, else none."""
    if protocol is None or set(protocol.objects) != set(uids):
        return []
    return [
        {"method": one.method, "alignment": protocol.alignment, **one.scores, "source": one.source}
        for one in protocol.published
    ]


def notes(
    true: MeshFolder, methods: Sequence[MeshFolder], protocol: MeshProtocol | None, rows: Sequence[MeshRow]
) -> list[str]:
    """Return a sentence for each thing that limits the results."""
    sentences = []
    for method in methods:
        empty = {row.uid for row in rows if row.method == method.name and not row.scores}
        if empty:
            total = len(true.files)
            sentences.append(
                f"The means of {method.name} are over {total - len(empty)} of {total} objects: {_some(empty)} "
                f"{'has' if len(empty) == 1 else 'have'} no scores, for the reason in per_object.csv."
            )
        if others := method.files.keys() - true.files.keys():
            sentences.append(
                f"Meshes of {method.name} that are of no true object and not scored: {len(others)}: {_some(others)}."
            )
    if protocol is None:
        sentences.append("No published figures are shown: they need benchmark=syncdreamer, and its objects.")
        return sentences
    if lacking := set(protocol.objects) - true.files.keys():
        sentences.append(
            f"The published figures of {protocol.name} are not shown: the truth lacks {len(lacking)} of its "
            f"{len(protocol.objects)} objects."
        )
    elif others := true.files.keys() - set(protocol.objects):
        sentences.append(
            f"The published figures of {protocol.name} are not shown: the truth has other objects: {_some(others)}."
        )
    return [*sentences, f"Not published of {protocol.name}: {protocol.unknown}."]


def _some(uids: Collection[str]) -> str:
    return ", ".join(sorted(uids)[:5]) + (" …" if len(uids) > 5 else "")


def object_table(rows: Sequence[MeshRow]) -> bytes:
    """Return per_object.csv: one row for each method, object and alignment."""
    names = [score.name for score in SCORES]
    head = ["method", "uid", "alignment", *names, "yaw_degrees", "scale", "reason"]

    def cells(row: MeshRow) -> list[object]:
        numbers = [*(row.scores.get(name) for name in names), row.yaw_degrees, row.scale]
        texts = ["" if number is None else f"{number:.6g}" for number in numbers]
        return [row.method, row.uid, row.alignment, *texts, row.reason]

    return csv_file(head, map(cells, rows))


def summary(figures: Sequence[MeshFigure]) -> list[str]:
    """Return a line for each method and alignment."""
    lines: dict[tuple[str, str], list[str]] = {}
    for figure in figures:
        if not figure.minus and figure.score in ("chamfer", "chamfer_visible", "iou", "iou_parity", "f_0.02"):
            text = f"{figure.score} {figure.mean.value:.4g}"
            lines.setdefault((figure.method, figure.alignment), []).append(text)
    return [f"{method}, alignment {alignment}: {', '.join(texts)}" for (method, alignment), texts in lines.items()]
