"""Compare speed and quality of the paper's render settings and `renderer=fast` on equal objects, cameras and lights.

    python -m rendering.benchmark my_objects
    python -m rendering.benchmark my_objects --objects 3 --views 2 --reference 128 --output benchmark.md

Each object is rendered like the paper (`renderer=zero123`: a new Blender process for each object, 512², 128 samples,
denoised, downsampled to 256²) and with `renderer=fast` (one process for all objects, 256²). The PSNR of both is taken
against a converged render, the mean over the area of each pixel, at four times the resolution and with other noise.
Times are CPU seconds of the Blender process with one Cycles thread, scaled to twelve views. At the end the objects are
rendered by one worker and by two in parallel, in wall-clock time: run nothing else on the machine meanwhile.
"""

import argparse
import os
import resource
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from conf.options import UserError
from rendering.blender_process import BlenderProcess, Rendered, require_blender
from rendering.failure import RenderFailure
from rendering.formats import SUFFIXES
from rendering.limits import Limits
from rendering.psnr import psnr
from rendering.settings import RenderSettings, preset

TABLE_HEAD = "| object | paper, CPU s | fast, CPU s | ratio | paper, dB | fast, dB | not sampling |"
VIEWS = 12
REFERENCE_SCALE = 4  # resolution of the converged render by that of the views
FAST, PAPER = preset("fast"), preset("zero123")
LIMITS = Limits(seconds=36_000, objects=10**9)
OBJAVERSE_OBJECTS = 798_759  # of Objaverse 1.0
SPOT_PRICE = 0.015  # dollars per core and hour, assumed: 16 vCPUs at 0.24 $ per hour

Images = NDArray[np.float64]  # [views, 256, 256, 3], on white, in [0, 1]


@dataclass(frozen=True)
class Comparison:
    """Results of one object with the paper's settings and with `renderer=fast`.

    Attributes:
        name: Stem of the file.
        paper_cpu: CPU seconds for twelve views, paper's settings.
        fast_cpu: CPU seconds for twelve views, `renderer=fast`.
        paper_psnr: PSNR against the converged render, dB.
        fast_psnr: PSNR against the converged render, dB.
        overhead: Part of `fast_cpu` that is not sampling: import, scene synchronisation, encoding.
    """

    name: str
    paper_cpu: float
    fast_cpu: float
    paper_psnr: float
    fast_psnr: float
    overhead: float


def main() -> None:
    """Run the command."""
    arguments = _parser().parse_args()
    try:
        require_blender()
        objects = _choose(Path(arguments.folder), arguments.objects)
        if arguments.output:
            _check_output(Path(arguments.output))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    rows: dict[Path, Comparison] = {}
    with BlenderProcess(LIMITS) as renderer, tqdm(objects, desc="benchmark", unit=" objects") as bar:
        for asset in bar:
            bar.set_postfix_str(asset.stem)
            try:
                rows[asset] = compare(asset, arguments.views, arguments.reference, renderer)
            except RenderFailure as failure:
                tqdm.write(f"  {asset} left out: {failure}", file=sys.stderr)
    if not rows:
        print(f"error: {arguments.folder}: none of {len(objects)} objects can be rendered; use others", file=sys.stderr)
        sys.exit(2)
    text = f"{table(list(rows.values()))}\n\n{scaling(list(rows), arguments.views)}"
    print(text)
    if arguments.output:
        Path(arguments.output).write_text(text + "\n")
        print(f"report: {arguments.output}")


def _check_output(path: Path) -> None:
    """Refuse to write over a file that is not an earlier report."""
    if path.exists() and not (
        path.is_file() and (path.stat().st_size == 0 or TABLE_HEAD in path.read_text(errors="replace"))
    ):
        raise UserError(f"--output {path}: the file was not written by this command; choose another path, or delete it")


def compare(asset: Path, views: int, reference: int, renderer: BlenderProcess) -> Comparison:
    """Render `asset` with both settings and once converged, with `reference` samples per pixel of a view."""
    fast, fast_images = _render(renderer, asset, replace(FAST, views=views))
    # One sample of few pixels costs only the scene's synchronisation and BVH, and the files.
    empty, _ = _render(renderer, asset, replace(FAST, views=views, resolution=8, samples=1, noise=0.0, denoise="none"))
    samples = max(1, reference // REFERENCE_SCALE**2)
    reference_settings = replace(
        FAST, views=views, resolution=256 * REFERENCE_SCALE, samples=samples, noise=0.0, denoise="none"
    )
    _, reference_images = _render(renderer, asset, reference_settings)

    before = _children_cpu()
    with BlenderProcess(LIMITS) as cold:
        paper, paper_images = _render(cold, asset, replace(PAPER, views=views))
    start = _children_cpu() - before - paper.cpu
    fixed = empty.phases["render"] + fast.phases["encode"]
    per_second = fast.cpu / sum(fast.phases.values())  # CPU seconds per wall-clock second
    return Comparison(
        asset.stem,
        start + _cpu_for_all_views(paper, views),
        _cpu_for_all_views(fast, views),
        psnr(paper_images, reference_images, peak=1),
        psnr(fast_images, reference_images, peak=1),
        per_second * (fast.phases["load"] + fixed * VIEWS / views) / _cpu_for_all_views(fast, views),
    )


def scaling(objects: list[Path], views: int) -> str:
    """Return a sentence with the objects per second of one worker and of two, in wall-clock time."""

    def seconds(workers: int) -> float:
        def work(worker: int) -> None:
            with BlenderProcess(LIMITS) as renderer:
                renderer.build("chair", 0, Path(folder) / f"{worker}.glb")  # starts Blender
                ready.wait()
                for asset in remaining:
                    _render(renderer, asset, replace(FAST, views=views))

        remaining = iter([*objects, *objects])  # twice, to average over uneven ends
        ready = threading.Barrier(workers + 1)
        with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(workers) as pool:
            done = [pool.submit(work, worker) for worker in range(workers)]
            ready.wait()
            start = time.monotonic()
            for future in done:
                future.result()
            return time.monotonic() - start

    one, two = seconds(1), seconds(2)
    return (
        f"Wall clock: one worker {2 * len(objects) / one:.2f} objects/s, two {2 * len(objects) / two:.2f} objects/s "
        f"({one / two:.2f}×), {views} views each, {os.cpu_count()} cores."
    )


def table(rows: list[Comparison]) -> str:
    """Return the results as a Markdown table, with an estimate for all of Objaverse."""
    head = f"{TABLE_HEAD}\n| --- |" + " --- |" * 6
    mean = Comparison(
        "mean", *(float(np.mean([getattr(row, field.name) for row in rows])) for field in fields(Comparison)[1:])
    )
    lines = [
        f"| {row.name} | {row.paper_cpu:.1f} | {row.fast_cpu:.2f} | {row.paper_cpu / row.fast_cpu:.1f}× "
        f"| {row.paper_psnr:.1f} | {row.fast_psnr:.1f} | {row.overhead:.0%} |"
        for row in [*rows, mean]
    ]
    worst = min(rows, key=lambda row: row.fast_psnr - row.paper_psnr)
    hours = [OBJAVERSE_OBJECTS * cpu / 3600 for cpu in (mean.paper_cpu, mean.fast_cpu)]
    return "\n".join(
        [
            head,
            *lines,
            "",
            f"Least favourable object: {worst.name}, {worst.fast_psnr - worst.paper_psnr:+.1f} dB.",
            "",
            f"| all of Objaverse ({OBJAVERSE_OBJECTS:,} objects like these) | paper | fast |",
            "| --- | --- | --- |",
            "| 1 core | " + " | ".join(f"{h / 24:,.0f} days" for h in hours) + " |",
            "| 1,000 cores | " + " | ".join(f"{h / 1000:.1f} hours" for h in hours) + " |",
            f"| spot machines at {SPOT_PRICE} $ a core and hour | "
            + " | ".join(f"{h * SPOT_PRICE:,.0f} $" for h in hours)
            + " |",
        ]
    )


def _render(renderer: BlenderProcess, asset: Path, settings: RenderSettings) -> tuple[Rendered, Images]:
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        rendered = renderer.render(asset, settings, 0, Path(folder))
        pictures = [_on_white(Image.open(path)) for path in sorted(Path(folder).glob("*.webp"))]
    return rendered, np.stack(pictures)


def _on_white(image: Image.Image) -> NDArray[np.float64]:
    """Return `image` on white, `[H, W, 3]` in [0, 1], averaged down to 256² if it is larger."""
    pixels = np.asarray(image).astype(np.float64) / 255
    white = pixels[..., :3] * pixels[..., 3:] + 1 - pixels[..., 3:]
    step = max(1, image.width // 256)
    side = image.width // step
    return white.reshape(side, step, side, step, 3).mean(axis=(1, 3))


def _cpu_for_all_views(rendered: Rendered, views: int) -> float:
    """Return the CPU seconds for `VIEWS` views: the import once, the other phases for each view."""
    load = rendered.phases["load"] / sum(rendered.phases.values())
    return rendered.cpu * (load + (1 - load) * VIEWS / views)


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _choose(folder: Path, count: int) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the folder of the objects")
    objects = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not objects:
        raise UserError(f"{folder}: no file ends in {', '.join(SUFFIXES)}; choose another folder")
    return [objects[i] for i in np.linspace(0, len(objects) - 1, min(count, len(objects))).round().astype(int)]


def _count(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 1")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rendering.benchmark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", help="folder of 3D files, searched recursively")
    parser.add_argument("--objects", type=_count, default=10, help="number of objects, evenly spread (10)")
    parser.add_argument("--views", type=_count, default=VIEWS, help="views to render of each object (12)")
    parser.add_argument("--reference", type=_count, default=512, help="samples per pixel of the converged render (512)")
    parser.add_argument("--output", help="Markdown file to write the table to")
    return parser


if __name__ == "__main__":
    main()
