"""The paper's way of rendering against ours, in one run, on the same objects, cameras and lights.

    python -m rendering.benchmark my_objects
    python -m rendering.benchmark my_objects --objects 3 --views 2 --reference 128 --output benchmark.md

Each object is rendered as the paper's driver does it (a cold Blender for every object, 512², 128 samples, denoised,
halved to 256²), and as `renderer=fast` does (one Blender for all, 256²). A converged rendering says how far each is
from the truth: the mean over every pixel's area, which is what both approximate. It comes from a grid four times as
fine, so that neither shares its noise. Times are CPU seconds of Blender's process, one Cycles thread, so that other
work beside counts little; they are given for an object of twelve views, whatever number was rendered. At the end the
objects are rendered once more by one worker and by two at a time, by the clock: leave the machine alone meanwhile.
"""

import argparse
import os
import resource
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from conf.options import UserError
from rendering.blender_process import BlenderProcess, Rendered, require_blender
from rendering.formats import SUFFIXES
from rendering.limits import Limits
from rendering.psnr import psnr
from rendering.settings import RenderSettings, preset

HEAD = "| object | paper, CPU s | ours, CPU s | ratio | paper, dB | ours, dB | not sampling |"
VIEWS = 12
FINE = 4  # pixels of the reference to one
FAST, PAPER = preset("fast"), preset("zero123")
LIMITS = Limits(seconds=36_000, objects=10**9)
CATALOGUE = 798_759  # objects of Objaverse 1.0
SPOT_PRICE = 0.015  # dollars for a core and hour, an assumption: 16 vCPUs at 0.24 $ an hour

Pictures = NDArray[np.float64]  # [views, 256, 256, 3] on white


@dataclass(frozen=True)
class Comparison:
    """One object both ways: CPU seconds for twelve views, dB against the converged pictures."""

    name: str
    paper_cpu: float
    fast_cpu: float
    paper_psnr: float
    fast_psnr: float
    overhead: float  # the part of fast_cpu that is not sampling: import, sync, encoding


def main() -> None:
    arguments = _parser().parse_args()
    try:
        require_blender()
        objects = _choose(Path(arguments.folder), arguments.objects)
        if arguments.output:
            _check_output(Path(arguments.output))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    rows = []
    with BlenderProcess(LIMITS) as renderer, tqdm(objects, desc="benchmark", unit=" objects") as bar:
        for asset in bar:
            bar.set_postfix_str(asset.stem)
            rows.append(compare(asset, arguments.views, arguments.reference, renderer))
    text = f"{table(rows)}\n\n{scaling(objects, arguments.views)}"
    print(text)
    if arguments.output:
        Path(arguments.output).write_text(text + "\n")
        print(f"report: {arguments.output}")


def _check_output(path: Path) -> None:
    """Refuse to write over a file that is not an earlier report."""
    if path.exists() and not (
        path.is_file() and (path.stat().st_size == 0 or HEAD in path.read_text(errors="replace"))
    ):
        raise UserError(f"--output {path}: this command did not write it; choose another path, or delete it")


def compare(asset: Path, views: int, reference: int, renderer: BlenderProcess) -> Comparison:
    """Render one object both ways and once converged, with `reference` samples to a final pixel."""
    fast, fast_pictures = _render(renderer, asset, replace(FAST, views=views))
    # What remains when there is nothing to sample: the scene's sync and BVH, and the files.
    bare, _ = _render(renderer, asset, replace(FAST, views=views, resolution=8, samples=1, noise=0.0, denoise="none"))
    samples = max(1, reference // FINE**2)
    truth_settings = replace(FAST, views=views, resolution=256 * FINE, samples=samples, noise=0.0, denoise="none")
    _, truth = _render(renderer, asset, truth_settings)

    before = _children_cpu()
    with BlenderProcess(LIMITS) as cold:
        paper, paper_pictures = _render(cold, asset, replace(PAPER, views=views))
    start = _children_cpu() - before - paper.cpu
    fixed = bare.phases["render"] + fast.phases["encode"]
    per_second = fast.cpu / sum(fast.phases.values())  # CPU seconds to a second of the clock
    return Comparison(
        asset.stem,
        start + _for_twelve(paper, views),
        _for_twelve(fast, views),
        psnr(paper_pictures, truth, peak=1),
        psnr(fast_pictures, truth, peak=1),
        per_second * (fast.phases["load"] + fixed * VIEWS / views) / _for_twelve(fast, views),
    )


def scaling(objects: list[Path], views: int) -> str:
    """What a second worker of one thread brings where there are two cores: objects per second, by the clock."""

    def seconds(workers: int) -> float:
        def share(worker: int) -> None:
            with BlenderProcess(LIMITS) as renderer:
                renderer.build("chair", 0, Path(folder) / f"{worker}.glb")  # so that Blender has started
                ready.wait()
                for asset in todo:
                    _render(renderer, asset, replace(FAST, views=views))

        todo = iter([*objects, *objects])  # twice, so that the last one matters little
        ready = threading.Barrier(workers + 1)
        with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(workers) as pool:
            done = [pool.submit(share, worker) for worker in range(workers)]
            ready.wait()
            start = time.monotonic()
            for future in done:
                future.result()
            return time.monotonic() - start

    one, two = seconds(1), seconds(2)
    return (
        f"By the clock: one worker {2 * len(objects) / one:.2f} objects/s, two {2 * len(objects) / two:.2f} objects/s "
        f"({one / two:.2f}×), {views} views each, {os.cpu_count()} cores."
    )


def table(rows: list[Comparison]) -> str:
    """The comparison as Markdown, and what it means for the whole catalogue."""
    head = f"{HEAD}\n| --- |" + " --- |" * 6
    mean = Comparison("mean", *(float(np.mean([getattr(row, name) for row in rows])) for name in FIGURES))
    lines = [
        f"| {row.name} | {row.paper_cpu:.1f} | {row.fast_cpu:.2f} | {row.paper_cpu / row.fast_cpu:.1f}× "
        f"| {row.paper_psnr:.1f} | {row.fast_psnr:.1f} | {row.overhead:.0%} |"
        for row in [*rows, mean]
    ]
    worst = min(rows, key=lambda row: row.fast_psnr - row.paper_psnr)
    hours = [CATALOGUE * cpu / 3600 for cpu in (mean.paper_cpu, mean.fast_cpu)]
    return "\n".join(
        [
            head,
            *lines,
            "",
            f"Least favourable object: {worst.name}, {worst.fast_psnr - worst.paper_psnr:+.1f} dB.",
            "",
            f"| all of Objaverse ({CATALOGUE:,} objects like these) | paper | ours |",
            "| --- | --- | --- |",
            "| 1 core | " + " | ".join(f"{h / 24:,.0f} days" for h in hours) + " |",
            "| 1,000 cores | " + " | ".join(f"{h / 1000:.1f} hours" for h in hours) + " |",
            f"| spot machines at {SPOT_PRICE} $ a core and hour | "
            + " | ".join(f"{h * SPOT_PRICE:,.0f} $" for h in hours)
            + " |",
        ]
    )


FIGURES = ("paper_cpu", "fast_cpu", "paper_psnr", "fast_psnr", "overhead")


def _render(renderer: BlenderProcess, asset: Path, settings: RenderSettings) -> tuple[Rendered, Pictures]:
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        rendered = renderer.render(asset, settings, 0, Path(folder))
        pictures = [_on_white(Image.open(path)) for path in sorted(Path(folder).glob("*.webp"))]
    return rendered, np.stack(pictures)


def _on_white(image: Image.Image) -> NDArray[np.float64]:
    """Composited, then averaged down to 256² where it is larger (a smaller one stays)."""
    pixels = np.asarray(image).astype(np.float64) / 255
    white = pixels[..., :3] * pixels[..., 3:] + 1 - pixels[..., 3:]
    step = max(1, image.width // 256)
    side = image.width // step
    return white.reshape(side, step, side, step, 3).mean(axis=(1, 3))


def _for_twelve(rendered: Rendered, views: int) -> float:
    """CPU seconds that an object of twelve views takes: the import once, the rest once for each view."""
    load = rendered.phases["load"] / sum(rendered.phases.values())
    return rendered.cpu * (load + (1 - load) * VIEWS / views)


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _choose(folder: Path, count: int) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    objects = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not objects:
        raise UserError(f"{folder} holds no file ending in {', '.join(SUFFIXES)}")
    return [objects[i] for i in np.linspace(0, len(objects) - 1, min(count, len(objects))).round().astype(int)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rendering.benchmark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", help="of 3D objects, any depth")
    parser.add_argument("--objects", type=int, default=10, help="take so many, evenly spread (10)")
    parser.add_argument("--views", type=int, default=VIEWS, help="render so many of the twelve views (12)")
    parser.add_argument("--reference", type=int, default=512, help="samples to a pixel of the converged pictures (512)")
    parser.add_argument("--output", help="a Markdown file for the table")
    return parser


if __name__ == "__main__":
    main()
