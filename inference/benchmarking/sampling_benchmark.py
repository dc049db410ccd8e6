"""Measure variants of sampling alternately, and report their times and the differences between their pictures."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from inference.benchmarking.community_pipeline import community_pipeline
from inference.config import BenchmarkConfig
from inference.novel_view import NovelView
from inference.poses import Turn, orbit_turns
from inference.preprocess.framing import Prepared
from training.model.attention import attend_to_one_token
from training.model.hardware.device import dtype_name
from training.model.hardware.precision import Precision
from training.model.zero123 import Zero123

ELEVATION = 20.0  # of the input camera, degrees above the horizon, which Stable-Zero123's pose vector holds


@dataclass
class Variant:
    """A variant of sampling, and its measurements.

    Attributes:
        name: Name in the report.
        dtype: Number format of the U-Net.
        sample: Samples all views.
        seconds: Duration of each round.
        views: The views of the last round.
    """

    name: str
    dtype: torch.dtype
    sample: Callable[[], list[Image.Image]]
    seconds: list[float] = field(default_factory=list)
    views: list[Image.Image] = field(default_factory=list)


def benchmark(config: BenchmarkConfig) -> int:
    """Measure all variants and write the report; return the exit code."""
    assert config.checkpoint is not None  # checked by the options
    ours = NovelView.load(config.checkpoint, config.device, config.precision, config.compile)
    is_default = config.precision is Precision.auto and ours.model.device.type == "cpu"
    single_precision = Precision.float32 if is_default else config.precision  # the default of diffusers on a CPU
    single = NovelView.load(config.checkpoint, config.device, single_precision)
    attend_to_one_token(single.model.unet, shortcut=False)
    turns, side = orbit_turns(config.views), ours.model.resolution
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))

    def sample(novel_view: NovelView, turns: list[Turn]) -> list[Image.Image]:
        return novel_view(
            Prepared(picture, picture), turns, config.sampling, elevation=ELEVATION, on_step=lambda done, total: None
        )

    variants = [
        Variant("ours", ours.model.unet.dtype, lambda: sample(ours, turns)),
        Variant(
            "single calls", single.model.unet.dtype, lambda: [view for turn in turns for view in sample(single, [turn])]
        ),
    ]
    if config.community:
        call = community_pipeline(Path(config.community), single.model, config)
        variants.append(Variant("community", single.model.unet.dtype, lambda: [call(picture, turn) for turn in turns]))
    measure(variants, config.rounds, ours.model.device)
    text, output = table(variants, config, ours.model), Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    (output / "benchmark.json").write_text(
        json.dumps({variant.name: variant.seconds for variant in variants}, indent=1) + "\n"
    )
    (output / "benchmark.md").write_text(text)
    print(text)
    print(f"report: {output / 'benchmark.md'}")
    return 0


def measure(variants: list[Variant], rounds: int, device: torch.device) -> None:
    """Measure each variant once per round; on a GPU after a warm-up round."""
    warm_up = device.type == "cuda"
    with tqdm(total=(rounds + warm_up) * len(variants), desc="benchmark", unit=" runs") as bar:
        for measured in [False] * warm_up + [True] * rounds:
            for variant in variants:
                start = perf_counter()
                variant.views = variant.sample()  # pictures on the CPU, so the device has finished
                if measured:
                    variant.seconds.append(perf_counter() - start)
                bar.update()


def table(variants: list[Variant], config: BenchmarkConfig, model: Zero123) -> str:
    """Return the report as Markdown; the first variant is the one that the others are compared with."""
    ours = variants[0]
    name = torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else "CPU"
    lines = [
        f"{config.views} views of one picture at {model.resolution}², {config.sampling.steps} steps of "
        f"{config.sampling.sampler}; {name}, median of {config.rounds}\n",
        "| variant | U-Net | median, s | maximum, s | speed-up of ours | mean difference to ours, of 255 |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for variant in variants:
        speed_up = median(variant.seconds) / median(ours.seconds)
        pixels, our_pixels = (
            np.stack([np.asarray(view, dtype=float) for view in views]) for views in (variant.views, ours.views)
        )
        difference = np.abs(pixels - our_pixels).mean()
        dtype, seconds = dtype_name(variant.dtype), variant.seconds
        columns = f"{dtype} | {median(seconds):.2f} | {max(seconds):.2f} | {speed_up:.2f}× | {difference:.2f}"
        lines.append(f"| {variant.name} | {columns} |")
    return "\n".join(lines) + "\n"
