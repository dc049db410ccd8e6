"""Sample and score views of held-out objects, and write them with the losses of a run as an HTML page."""

import csv
import io
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from conf.options import UserError
from inference.config import ReportConfig
from inference.evaluation.selection import read_held_out
from inference.novel_view import NovelView, to_image
from inference.preprocess.framing import Prepared
from inference.views.orbits import Orbit, orbit_figure, sample_orbits
from pipeline.html import is_page, page, picture, views_figure
from pipeline.output import require_own_file
from pipeline.samples import Sample, npy_array, read_samples, view_names
from pipeline.storage import write_atomically
from rendering.cameras import camera_centre, cartesian_to_spherical, relative_pose
from rendering.psnr import psnr
from training.data.sources import Source, read_sources
from training.model.conditioning import convert_pose
from training.model.hardware.cpu_threads import use_free_cores
from training.model.picture import decode

COMMAND = "inference.report"
SEED_STRIDE = 1_000_003  # between the first seeds of two values of sampling.seed
ORBIT_ELEVATION = 25.0
UNMARKED = b"<title>Zero-1-to-3: a run</title>"  # identifies reports of versions that wrote no mark


@dataclass(frozen=True)
class Pair:
    """Two views `[R, R, 3]` of one object, the relative pose `[4]`, and the condition's polar angle in radians."""

    uid: str
    condition: NDArray[np.uint8]
    target: NDArray[np.uint8]
    pose: NDArray[np.float64]
    condition_polar: float


@dataclass(frozen=True)
class ScoredView:
    """A sampled view and its score.

    Attributes:
        pair: The input, the truth and the pose.
        view: The sampled view, uint8 `[R, R, 3]`.
        start: The view that the checkpoint sampled from which the run started; None without such a checkpoint.
    """

    pair: Pair
    view: NDArray[np.uint8]
    start: NDArray[np.uint8] | None = None

    @property
    def psnr_db(self) -> float:
        """PSNR of the sampled view."""
        return psnr(self.view, self.pair.target)

    @property
    def start_db(self) -> float | None:
        """PSNR of the view of the checkpoint from which the run started."""
        return None if self.start is None else psnr(self.start, self.pair.target)

    @property
    def baseline_db(self) -> float:
        """PSNR of the input view, taken as the prediction."""
        return psnr(self.pair.condition, self.pair.target)


def write_report(config: ReportConfig) -> None:
    """Sample and score views of held-out objects, and write the report.

    Raises:
        UserError: The output is a file of others, the views hold no held-out object, or an input cannot be read.
    """
    folder = Path(config.run)
    require_own_file(config.output, is_page(COMMAND, UNMARKED))
    sources = read_sources(config.views, "views", "views")
    novel_view = NovelView.load(folder / "model", config.device)
    start = None if config.start is None else load_start(config, novel_view.model.resolution)
    inputs = [(Path(path).stem, novel_view.prepare(path)) for path in config.pictures]
    if novel_view.model.device.type == "cpu":
        use_free_cores()
    objects = [uid for source in sources for manifest in source.manifests for uid in manifest.uids]
    held_out = read_held_out(folder).intersection(objects)
    sheets: list[str] = []
    pairs: list[Pair] = []
    pairs_per_object = -(-config.rows // max(1, len(held_out)))
    for uid, sample in _samples(sources, len(objects)):
        if len(sheets) < config.limit:
            sheets.append(_sheet(uid, sample, uid in held_out))
        if uid in held_out:
            if len(inputs) < len(config.pictures) + config.orbits:
                inputs.append((uid, input_of_orbit(sample, novel_view.model.resolution)))
            all_pairs = view_pairs(uid, sample, novel_view.model.resolution, config.sampling.seed)
            pairs += itertools.islice(all_pairs, pairs_per_object)
        if len(sheets) >= config.limit and len(pairs) >= config.rows:
            break
    if not pairs:
        raise UserError(
            f"views={config.views}: holds no held-out object of {config.run}; give the views of its training"
        )
    orbits = sample_orbits(start or novel_view, inputs, config.orbit_views, config.sampling)
    scored = sample_pairs(novel_view, start, pairs[: config.rows], config)
    body = [
        _summary(len(objects), sum(uid in held_out for uid in objects), scored),
        _orbits(orbits, config.start),
        "<h2>Single views</h2><div class='rows'>" + "".join(_row(view) for view in scored) + "</div>",
        "<h2>Loss</h2>",
        loss_curve(folder / "metrics.csv"),
        "<h2>Objects</h2><p class='soft'>Rendered views of each object. "
        "Objects marked <i>held out</i> were not used in training.</p>",
        *sheets,
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


def view_pairs(uid: str, sample: Sample, resolution: int, seed: int) -> Iterator[Pair]:
    """Yield all ordered pairs of different views, in an order that depends on `seed` and `uid`."""
    names, cameras = view_names(sample), npy_array(sample["cameras.npy"])
    pairs = list(itertools.permutations(range(len(names)), 2))
    for i in np.random.default_rng([seed, *uid.encode()]).permutation(len(pairs)):
        condition, target = pairs[i]
        yield Pair(
            uid,
            decode(sample[names[condition]], resolution),
            decode(sample[names[target]], resolution),
            relative_pose(cameras[target], cameras[condition]),
            cartesian_to_spherical(camera_centre(cameras[condition]))[0],
        )


def input_of_orbit(sample: Sample, resolution: int) -> Prepared:
    """Return the view of an object whose camera is nearest to `ORBIT_ELEVATION` degrees above the horizon."""
    polars = [cartesian_to_spherical(centre)[0] for centre in camera_centre(npy_array(sample["cameras.npy"]))]
    nearest = int(np.abs(90 - np.degrees(polars) - ORBIT_ELEVATION).argmin())
    return _prepared(decode(sample[view_names(sample)[nearest]], resolution))


def sample_pairs(
    novel_view: NovelView, start: NovelView | None, pairs: list[Pair], config: ReportConfig
) -> list[ScoredView]:
    """Sample the target view of each pair, each with its own seed; `start` samples them too."""
    views = _views(novel_view, pairs, config)
    starts = [None] * len(pairs) if start is None else _views(start, pairs, config)
    return [ScoredView(*row) for row in zip(pairs, views, starts, strict=True)]


def _views(novel_view: NovelView, pairs: list[Pair], config: ReportConfig) -> list[NDArray[np.uint8]]:
    encoded = novel_view.encode(*(_prepared(pair.condition) for pair in pairs))
    first_seed = config.sampling.seed * SEED_STRIDE
    seeds = range(first_seed, first_seed + len(pairs))
    poses = torch.from_numpy(np.stack([pair.pose for pair in pairs]))
    polars = torch.tensor([pair.condition_polar for pair in pairs], dtype=torch.float64)
    poses = convert_pose(novel_view.model.cc_projection.pose_vector, poses, polars)
    return [np.array(to_image(view)) for view in novel_view.sample(encoded, poses, config.sampling, seeds)]


def _prepared(render: NDArray[np.uint8]) -> Prepared:
    """Return a rendered view as it is, since renders need no preparation."""
    image = Image.fromarray(render)
    return Prepared(image, image)


def mean_scores(scored: list[ScoredView]) -> tuple[float, float]:
    """Return the mean PSNR, dB, of the sampled views and of the input views."""
    return float(np.mean([view.psnr_db for view in scored])), float(np.mean([view.baseline_db for view in scored]))


def mean_start_score(scored: list[ScoredView]) -> float | None:
    """Return the mean PSNR, dB, of the views of the checkpoint from which the run started."""
    scores = [view.start_db for view in scored if view.start_db is not None]
    return float(np.mean(scores)) if scores else None


def loss_curve(metrics: Path) -> str:
    """Return an inline SVG of training and validation loss by step."""
    with open(metrics, newline="") as file:
        rows = list(csv.DictReader(file))
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.add_subplot()
    for column, label in (("loss", "training"), ("val_loss", "held-out objects, averaged weights")):
        points = [(int(row["step"]), float(row[column])) for row in rows if row[column]]
        if points:
            steps, losses = np.array(points).T
            axes.plot(steps, losses, label=label, linewidth=1.4, marker="o" if len(points) < 30 else None, markersize=3)
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
{objects} objects; the objects below are among the {held_out} held out.</p>
<p class="soft">The mean PSNR of the sampled views is {score:.1f} dB{started}, that of the input views as predictions
{baseline:.1f} dB. The sampled view is the better prediction in {better} of {len(scored)} pairs.</p>"""


def _orbits(orbits: list[Orbit], start: str | None) -> str:
    if not orbits:
        return ""
    model = "the model" if start is None else f"{escape(start)}, the checkpoint that the training started from"
    return (
        f"<h2>All around</h2><p class='soft'>Views on a circle around the object, sampled by {model}.</p>"
        f"<div class='orbits'>{''.join(map(orbit_figure, orbits))}</div>"
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
