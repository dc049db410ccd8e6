"""One page about a run: what it was trained on, how the loss fell, and new views next to the truth.

    python -m inference.report views=outputs/views run=outputs/run output=outputs/report.html

The views that it draws are of objects that training never saw. The page is self-contained: pictures travel inside.
"""

import csv
import io
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from tarfile import TarError

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from conf.command import run
from conf.options import UserError
from inference.config import ReportConfig
from inference.novel_view import NovelView, to_image
from inference.preprocess.framing import Prepared
from pipeline.html import contact_sheet, is_page, page, picture
from pipeline.output import require_own_file
from pipeline.shards import Sample, ShardManifest, npy_array, read_manifests, read_samples, view_names
from pipeline.storage import write_atomically
from rendering.cameras import camera_centre, cartesian_to_spherical, relative_pose
from rendering.psnr import psnr
from training.model.conditioning import convert_pose
from training.model.picture import decode

COMMAND = "inference.report"
EARLIER = b"<title>Zero-1-to-3: a run</title>"  # of pages that have no mark yet


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
    """A pair with what the model made of it, and how close that is to the truth (PSNR, dB) beside how close
    it would have been to show the input again."""

    pair: Pair
    view: NDArray[np.uint8]
    score: float
    repeated: float


def main(config: ReportConfig) -> None:
    folder = Path(config.run)
    require_own_file(config.output, is_page(COMMAND, EARLIER))
    markers = read_manifests(config.views, "views")
    novel_view = NovelView.load(folder / "model", config.device)
    held_out = read_held_out(folder)
    sheets: list[str] = []
    pairs: list[Pair] = []
    share = -(-config.rows // len(held_out))
    for uid, sample in _samples(config, markers):
        if len(sheets) < config.limit:
            sheets.append(_sheet(uid, sample, uid in held_out))
        if uid in held_out:
            pairs += itertools.islice(view_pairs(uid, sample, novel_view.model.resolution, config.sampling.seed), share)
        if len(sheets) >= config.limit and len(pairs) >= config.rows:
            break
    if not pairs:
        raise UserError(f"no object that {config.run} held out lies in {config.views}; name the views it was given")
    drawn = sample_pairs(novel_view, pairs[: config.rows], config)
    body = [
        _opening(markers, held_out, drawn),
        "<div class='rows'>" + "".join(_row(one) for one in drawn) + "</div>",
        "<h2>How the loss fell</h2>",
        loss_curve(folder / "metrics.csv"),
        "<h2>The objects</h2><p class='soft'>Random views around each, as they were rendered. "
        "Those marked <i>held out</i> were never trained on.</p>",
        *sheets,
    ]
    write_atomically(config.output, page("Zero-1-to-3: a run", "\n".join(body), COMMAND))
    score, repeated = mean_scores(drawn)
    print(
        f"{len(drawn)} views of unseen objects: drawn {score:.1f} dB, the input repeated {repeated:.1f} dB (mean PSNR)"
    )
    print(f"report: {config.output}")


def read_held_out(run: Path) -> frozenset[str]:
    """The uids that a run kept from training."""
    try:
        uids = (run / "validation.txt").read_text().split()
    except FileNotFoundError:
        raise UserError(f"{run} is no run of training.finetune: it has no validation.txt") from None
    if not uids:
        raise UserError(f"{run} held no object out; train with data.validation_fraction above 0 to see unseen ones")
    return frozenset(uids)


def view_pairs(uid: str, sample: Sample, resolution: int, seed: int) -> Iterator[Pair]:
    """All ordered pairs of different views, in an order that follows from the seed."""
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


def sample_pairs(novel_view: NovelView, pairs: list[Pair], config: ReportConfig) -> list[ScoredView]:
    inputs = [Image.fromarray(pair.condition) for pair in pairs]
    seen = novel_view.encode(*(Prepared(image, image) for image in inputs))  # renders need no preparation
    seeds = range(config.sampling.seed * 1_000_003, config.sampling.seed * 1_000_003 + len(pairs))
    poses = torch.from_numpy(np.stack([pair.pose for pair in pairs]))
    polars = torch.tensor([pair.condition_polar for pair in pairs], dtype=torch.float64)
    poses = convert_pose(novel_view.model.cc_projection.pose_vector, poses, polars)
    views = novel_view.sample(seen, poses, config.sampling, seeds)
    drawn = []
    for pair, view in zip(pairs, views, strict=True):
        pixels = np.array(to_image(view))
        drawn.append(ScoredView(pair, pixels, psnr(pixels, pair.target), psnr(pair.condition, pair.target)))
    return drawn


def mean_scores(drawn: list[ScoredView]) -> tuple[float, float]:
    """Mean PSNR of the drawn views, and of showing the input again, dB."""
    return float(np.mean([one.score for one in drawn])), float(np.mean([one.repeated for one in drawn]))


def loss_curve(metrics: Path) -> str:
    """An inline SVG of training and validation loss over the steps."""
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
    # Text stays text, and ids are the same each time.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "loss"}):
        svg = io.StringIO()
        figure.savefig(svg, format="svg", metadata={"Date": None})
    return f"<div class='paper'>{svg.getvalue()[svg.getvalue().index('<svg') :]}</div>"


def _samples(config: ReportConfig, markers: list[ShardManifest]) -> Iterator[tuple[str, Sample]]:
    total = sum(len(marker.uids) for marker in markers)
    with tqdm(total=total, desc="reading", unit=" objects") as bar:
        for marker in markers:
            try:
                for sample in read_samples(config.views, marker.name):
                    bar.update()
                    yield sample
            except (OSError, ValueError, TarError) as error:
                raise UserError(
                    f"shard {marker.name} is damaged ({error!r}); see python -m pipeline.verify path={config.views}"
                ) from error


def _opening(markers: list[ShardManifest], held_out: frozenset[str], drawn: list[ScoredView]) -> str:
    objects = sum(len(marker.uids) for marker in markers)
    score, repeated = mean_scores(drawn)
    better = sum(one.score > one.repeated for one in drawn)
    return f"""<h1>New views of objects it never saw</h1>
<p>From one picture, the model draws the object as another camera would see it. It was trained on
{objects - len(held_out)} of {objects} objects; those below are among the {len(held_out)} held out.</p>
<p class="soft">Mean PSNR of the drawn views {score:.1f} dB; repeating the input instead scores {repeated:.1f} dB.
The drawn view is the closer one in {better} of {len(drawn)} pairs.</p>"""


def _row(one: ScoredView) -> str:
    polar, sine, cosine, radius = one.pair.pose
    azimuth = np.arctan2(sine, cosine)
    turn = f"Δθ {np.degrees(polar):+.0f}°, Δφ {np.degrees(azimuth):+.0f}°, Δr {radius:+.2f}"
    cells = "".join(
        f"<div>{picture(_png(pixels), 'png', f'{one.pair.uid}: {name}')}<span>{name}</span></div>"
        for name, pixels in (("input", one.pair.condition), ("truth", one.pair.target), ("generated", one.view))
    )
    caption = f"<b>{escape(one.pair.uid)}</b> {turn} · {one.score:.1f} dB"
    return f"<figure class='row'><div class='three'>{cells}</div><figcaption>{caption}</figcaption></figure>"


def _sheet(uid: str, sample: Sample, held_out: bool) -> str:
    meta = json.loads(sample["meta.json"])
    caption = " · ".join(filter(None, ["held out" if held_out else "", meta["source"], meta["license"]]))
    return contact_sheet([sample[name] for name in view_names(sample)], uid, caption)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


if __name__ == "__main__":
    run(main, ReportConfig, "inference", "report", help=__doc__)
