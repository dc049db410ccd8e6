"""Write the page of an evaluation: for each table its protocol, scores beside published ones, curves and pictures."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from inference.evaluation.protocol import description
from inference.evaluation.report.columns import columns_of
from inference.evaluation.report.curves import curves
from inference.evaluation.report.pictures import picture_rows
from inference.evaluation.report.tables import difference_table, published_table, score_table
from inference.evaluation.results import Results
from pipeline.html import page, table

STYLE = """<style>
.wide { overflow-x: auto; } .scores td, .scores th { white-space: nowrap; }
.pair { display: grid; grid-auto-flow: column; grid-auto-columns: minmax(84px, 150px); gap: 3px; overflow-x: auto; }
.pair div { background: #fff; color: #6b7075; border: 1px solid var(--line); border-radius: 6px; overflow: hidden;
            text-align: center; font-size: .7rem; line-height: 1.3; padding-bottom: .2rem; }
.pair img { width: 100%; display: block; aspect-ratio: 1; }
.strips { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 250px), 1fr)); gap: 6px; }
.strips div { background: #fff; color: #6b7075; border: 1px solid var(--line); border-radius: 6px; overflow: hidden;
              text-align: center; font-size: .8rem; line-height: 1.4; padding-bottom: .2rem; }
.strips img { width: 100%; display: block; aspect-ratio: 4 / 3; }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 1rem; }
</style>"""
SETTINGS = ("weights", "resolution", "seed", "pairs", "limit", "views", "splits", "training", "references", "oracle")


def report(metrics: Mapping[str, Any], results: Sequence[Results], consistency: str = "") -> bytes:
    """Return the page.

    Args:
        metrics: Contents of metrics.json.
        results: Scores of each table.
        consistency: HTML of the consistency of orbits; empty without it.
    """
    body = [STYLE, "<h1>Scores of novel views</h1>", _introduction(metrics)]
    body += [section for one in results for section in _sections(one, metrics)]
    body += [consistency, "<h2>Settings</h2>", _settings(metrics)]
    return page("Zero-1-to-3: scores", "\n".join(body), "inference.evaluate")


def _introduction(metrics: Mapping[str, Any]) -> str:
    model = f"Checkpoint <b>{escape(metrics['checkpoint'])}</b>, weights {escape(metrics['weights'])}. "
    sentences = "".join(f"<p class='soft'>{escape(text)}</p>" for text in metrics["left_out"])
    return (
        f"<p>{model if metrics['checkpoint'] else ''}"
        "From one view of an object, others are predicted and compared with the true ones. Means are over objects; in "
        "brackets their 95 % intervals. The pose that a picture shows is the camera of the most similar render of the "
        f"object from a grid of cameras; a view is clear if its true picture shows it within 20°.</p>{sentences}"
    )


def _sections(one: Results, metrics: Mapping[str, Any]) -> Iterable[str]:
    columns = columns_of(one)
    yield f"<h2>{escape(one.scored.title)}</h2>"
    yield _protocol(one, metrics)
    yield score_table(one, columns)
    yield _missing(one)
    yield published_table(one, columns)
    yield difference_table(one, columns)
    yield curves(one, columns)
    yield picture_rows(one, columns)


def _protocol(one: Results, metrics: Mapping[str, Any]) -> str:
    rows = description(one.scored.benchmark, metrics["pairs"])
    sentences = [f"Differs from the protocol: {text}" for text in one.deviations]
    sentences += [f"Differs from the publication: {text}" for text in one.scored.benchmark.differences]
    sentences += [f"Not published: {text}" for text in one.scored.benchmark.unknown]
    objects, views = len(one.scored.objects), sum(len(obj.pairs) for obj in one.scored.objects)
    return (
        f"<p class='soft'>{objects} objects, {views} views of {one.scored.resolution}² pixels</p>"
        f"<details><summary>Protocol</summary><div class='wide'>{table(['', ''], rows)}</div></details>"
        + "".join(f"<p class='soft'>{escape(text)}</p>" for text in sentences)
    )


def _missing(one: Results) -> str:
    return "".join(
        f"<p><b>{escape(method)}</b>: {len(reasons)} pictures are missing, the first because {escape(reasons[0])}. Its "
        "scores are of the others.</p>"
        for method, reasons in one.missing.items()
    )


def _settings(metrics: Mapping[str, Any]) -> str:
    rows: Iterable[tuple[str, object]] = [
        *((name, _plain(metrics[name])) for name in SETTINGS),
        *((name, value) for name, value in metrics.items() if name.startswith("sampling.")),
        *metrics["settings"].items(),
    ]
    return f"<div class='wide'>{table(['setting', 'value'], rows)}</div>"


def _plain(value: object) -> object:
    return ", ".join(map(str, value)) if isinstance(value, list) else "" if value is None else value
