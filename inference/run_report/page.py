"""Write views of held-out objects, orbits and the losses of a run as an HTML page."""

import io
import itertools
import json
import operator
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from conf.options import UserError
from inference.config import ReportConfig
from inference.evaluation.selection import read_held_out
from inference.novel_view import NovelView
from inference.run_report.pairs import (
    Pair,
    ScoredView,
    mean_scores,
    mean_start_score,
    prepared,
    sample_pairs,
    view_pairs,
)
from inference.views.orbits import Orbit, OrbitInput, orbit_figure, sample_orbits
from pipeline.html import is_page, page, picture, views_figure
from pipeline.output import require_own_file
from pipeline.samples import Sample, npy_array, read_samples, view_names
from pipeline.storage import write_atomically
from rendering.cameras import camera_centre, cartesian_to_spherical
from training.curves import Table, read_metrics
from training.data.sources import Source, read_sources
from training.model.hardware.cpu_threads import use_free_cores
from training.model.picture import decode

COMMAND = "inference.report"
ORBIT_ELEVATION = 25.0
UNMARKED = b"<title>Zero-1-to-3: a run</title>"  # identifies reports of versions that wrote no mark


def write_report(config: ReportConfig) -> None:
    """Sample and score views of held-out objects, and write the report.

    Raises:
        UserError: The output is a file of others, the views hold no held-out object, or an input cannot be read.
    """
    folder = Path(config.run)
    require_own_file(config.output, is_page(COMMAND, UNMARKED))
    sources = read_sources(config.views, "views", "views")
    novel_view = NovelView.load(folder / "model", config.device)
    losses = loss_curve(read_metrics(folder, "run"))
    start = None if config.start is None else load_start(config, novel_view.model.resolution)
    shown = [OrbitInput(Path(path).stem, novel_view.prepare(path), config.elevation) for path in config.pictures]
    shown += first_inputs(config.others, config.other_orbits, novel_view.model.resolution) if config.others else []
    if novel_view.model.device.type == "cpu":
        use_free_cores()
    objects = [uid for source in sources for manifest in source.manifests for uid in manifest.uids]
    held_out = read_held_out(folder).intersection(objects)
    if not held_out:
        raise UserError(
            f"views={config.views}: holds no held-out object of {config.run}; give the views of its training"
        )
    contents = read_contents(config, sources, held_out, novel_view.model.resolution)
    turning = sample_orbits(start or novel_view, shown, config.orbit_views, config.sampling)
    stages = [("before", start), ("after", novel_view)] if start else [("", novel_view)]
    compared = [
        sample_orbits(model, named(contents.inputs, stage), config.orbit_views, config.sampling)
        for stage, model in stages
    ]
    scored = sample_pairs(novel_view, start, contents.pairs, config.sampling)
    body = [
        _summary(len(objects), len(held_out), scored),
        _orbits(turning, f"sampled by {config.start or 'the model'}"),
        _compared_orbits(compared),
        "<h2>Single views</h2><div class='rows'>" + "".join(_row(view) for view in scored) + "</div>",
        "<h2>Loss</h2>",
        losses,
        "<h2>Objects</h2><p class='soft'>Rendered views of each object. "
        "Objects marked <i>held out</i> were not used in training.</p>",
        *contents.sheets,
    ]
    write_atomically(config.output, page("Zero-1-to-3: a run", "\n".join(body), COMMAND))
    score, baseline = mean_scores(scored)
    before = mean_start_score(scored)
    started = "" if before is None else f"; of those before this training: {before:.1f} dB"
    print(
        f"mean PSNR of {len(scored)} views of held-out objects: {score:.1f} dB{started}; "
        f"of their inputs: {baseline:.1f} dB"
    )
    print(f"report: {config.output}")


@dataclass(frozen=True)
class Contents:
    """Views of the shards that a report shows.

    Attributes:
        sheets: HTML of the views of each object.
        pairs: Pairs of views of held-out objects.
        inputs: Inputs of the orbits of held-out objects, named by their uids.
    """

    sheets: list[str]
    pairs: list[Pair]
    inputs: list[OrbitInput]


def read_contents(config: ReportConfig, sources: Sequence[Source], held_out: Set[str], resolution: int) -> Contents:
    """Read the views that the report shows, and no further."""
    contents, orbits = Contents([], [], []), min(config.orbits, len(held_out))
    objects = sum(len(manifest.uids) for source in sources for manifest in source.manifests)
    pairs_per_object = -(-config.rows // len(held_out))
    for uid, sample in _samples(sources, objects):
        if len(contents.sheets) < config.limit:
            contents.sheets.append(_sheet(uid, sample, uid in held_out))
        if uid in held_out:
            missing = min(pairs_per_object, config.rows - len(contents.pairs))
            all_pairs = view_pairs(uid, sample, resolution, config.sampling.seed)
            contents.pairs.extend(itertools.islice(all_pairs, missing))
            if len(contents.inputs) < orbits:
                contents.inputs.append(input_of_orbit(uid, sample, resolution))
        shown = (len(contents.sheets), len(contents.pairs), len(contents.inputs))
        if all(map(operator.ge, shown, (config.limit, config.rows, orbits))):
            break
    return contents


def load_start(config: ReportConfig, resolution: int) -> NovelView:
    """Load the checkpoint that the run started from.

    Raises:
        UserError: Its views have another size than those of the run.
    """
    assert config.start is not None
    start = NovelView.load(config.start, config.device)
    if start.model.resolution != resolution:
        raise UserError(
            f"start={config.start}: its views have {start.model.resolution}² pixels, those of {config.run} "
            f"{resolution}²; give the checkpoint that the run started from"
        )
    return start


def named(inputs: list[OrbitInput], stage: str) -> list[OrbitInput]:
    """Return inputs whose names end with a stage of the training, if one is given."""
    return [replace(shown, name=f"{shown.name}, {stage}" if stage else shown.name) for shown in inputs]


def first_inputs(views: str, count: int, resolution: int) -> list[OrbitInput]:
    """Return `input_of_orbit` of the first objects of view shards."""
    sources = read_sources(views, "views", "others")
    samples = (sample for source in sources for m in source.manifests for sample in read_samples(source.root, m.name))
    return [input_of_orbit(uid, sample, resolution) for uid, sample in itertools.islice(samples, count)]


def input_of_orbit(uid: str, sample: Sample, resolution: int) -> OrbitInput:
    """Return the view of an object whose camera is nearest to `ORBIT_ELEVATION` degrees above the horizon."""
    polars = [cartesian_to_spherical(centre)[0] for centre in camera_centre(npy_array(sample["cameras.npy"]))]
    elevations = 90 - np.degrees(polars)
    nearest = int(np.abs(elevations - ORBIT_ELEVATION).argmin())
    view = decode(sample[view_names(sample)[nearest]], resolution)
    return OrbitInput(uid, prepared(view), float(elevations[nearest]))


def loss_curve(table: Table) -> str:
    """Return an inline SVG of training and validation loss by step."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.add_subplot()
    for column, label in (("loss", "training"), ("val_loss", "held-out objects, averaged weights")):
        steps, values = table.get(column, ([], []))
        if steps:
            axes.plot(steps, values, label=label, linewidth=1.4, marker="o" if len(steps) < 30 else None, markersize=3)
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    axes.grid(alpha=0.25, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    # Keep text as text, and the same ids in each run.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "loss"}):
        svg = io.StringIO()
        figure.savefig(svg, format="svg", metadata={"Date": None})
    return f"<div class='paper'>{svg.getvalue()[svg.getvalue().index('<svg') :]}</div>"


def _samples(sources: Sequence[Source], objects: int) -> Iterator[tuple[str, Sample]]:
    with tqdm(total=objects, desc="reading", unit=" objects") as bar:
        for source in sources:
            for manifest in source.manifests:
                for sample in read_samples(source.root, manifest.name):
                    bar.update()
                    yield sample


def _summary(objects: int, held_out: int, scored: list[ScoredView]) -> str:
    score, baseline = mean_scores(scored)
    before = mean_start_score(scored)
    started = "" if before is None else f", before this training {before:.1f} dB"
    better = sum(view.psnr_db > view.baseline_db for view in scored)
    return f"""<h1>Novel views of held-out objects</h1>
<p>From one picture, the model samples the view of another camera. It was trained on {objects - held_out} of
{objects} objects; the scores are those of single views of the {held_out} held out.</p>
<p class="soft">The mean PSNR of the sampled views is {score:.1f} dB{started}, that of the input views as predictions
{baseline:.1f} dB. The sampled view is the better prediction in {better} of {len(scored)} pairs.</p>"""


def _orbits(orbits: list[Orbit], origin: str) -> str:
    if not orbits:
        return ""
    return (
        f"<h2>Pictures, all around</h2><p class='soft'>Views on a circle around the object, {escape(origin)}.</p>"
        f"<div class='orbits'>{''.join(map(orbit_figure, orbits))}</div>"
    )


def _compared_orbits(stages: list[list[Orbit]]) -> str:
    """Return the orbits of each object side by side, one for each stage of the model."""
    if not stages[0]:
        return ""
    stage = ", before and after this training" if len(stages) > 1 else ""
    return (
        f"<h2>Held-out objects, all around</h2><p class='soft'>Views on a circle around the object{stage}.</p>"
        f"<div class='orbits'>{''.join(map(orbit_figure, itertools.chain(*zip(*stages, strict=True))))}</div>"
    )


def _row(scored: ScoredView) -> str:
    pair = scored.pair
    polar, sine, cosine, radius = pair.pose
    azimuth = np.arctan2(sine, cosine)
    turn = f"Δθ {np.degrees(polar):+.0f}°, Δφ {np.degrees(azimuth):+.0f}°, Δr {radius:+.2f}"
    shown = [("input", pair.condition), ("truth", pair.target), ("sampled", scored.view)]
    if scored.start is not None:
        shown.insert(2, ("before", scored.start))
    cells = "".join(
        f"<div>{picture(_png(pixels), 'png', f'{pair.uid}: {name}')}<span>{name}</span></div>" for name, pixels in shown
    )
    caption = f"<b>{escape(pair.uid)}</b> {turn} · {scored.psnr_db:.1f} dB"
    return f"<figure class='row'><div class='cells'>{cells}</div><figcaption>{caption}</figcaption></figure>"


def _sheet(uid: str, sample: Sample, held_out: bool) -> str:
    meta = json.loads(sample["meta.json"])
    caption = " · ".join(filter(None, ["held out" if held_out else "", meta["source"], meta["license"]]))
    return views_figure([sample[name] for name in view_names(sample)], uid, caption)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
