"""How fast views are drawn, beside as many single calls, in one run.

    python -m inference.benchmark checkpoint=outputs/run/model
    python -m inference.benchmark checkpoint=105000.ckpt community=pipeline_zero1to3.py compile=true

*Ours* draws all views of one picture in one call of NovelView. *Single calls* draw them one after the other with
diffusers' attention, each with its own encoding of the picture; on a CPU in float32, unless `precision` is given.
*Community* is the pipeline of diffusers' examples/community/pipeline_zero1to3.py on the same weights, one call for each
view, where `community` names that file: it is run, and needs the package kornia. They take turns, medians count, and
the pictures are compared.
The folder `output` then holds benchmark.md and benchmark.json.
"""

import copy
import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
import transformers
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from PIL import Image
from torch import nn
from tqdm import tqdm

from conf.command import run
from conf.options import UserError
from inference.config import BenchmarkConfig, Precision, Sampler
from inference.novel_view import NovelView
from inference.poses import Turn, orbit_turns
from inference.preprocess.framing import Prepared
from pipeline.output import FolderLayout, claimed, json_object
from training.model.attention import attend_to_one_token
from training.model.zero123 import Zero123

LAYOUT = FolderLayout(
    record="benchmark.json",
    is_record=lambda contents: {"ours", "single calls"} <= json_object(contents).keys(),
    writes=r"benchmark\.(md|json)",
)


@dataclass
class Way:
    """A way of drawing the views, the seconds of each round, and the views of the last."""

    name: str
    dtype: torch.dtype
    draw: Callable[[], list[Image.Image]]
    seconds: list[float] = field(default_factory=list)
    views: list[Image.Image] = field(default_factory=list)


def main(config: BenchmarkConfig) -> int:
    with claimed(config.output, LAYOUT):
        return benchmark(config)


def benchmark(config: BenchmarkConfig) -> int:
    """Measure and write the report; return the exit code."""
    ours = NovelView.load(config.checkpoint, config.device, config.precision, config.compile)
    by_default = config.precision is Precision.auto and ours.model.device.type == "cpu"
    usual = Precision.float32 if by_default else config.precision  # diffusers knows no better on a CPU
    single = NovelView.load(config.checkpoint, config.device, usual)
    attend_to_one_token(single.model.unet, shortcut=False)
    turns, side = orbit_turns(config.views), ours.model.resolution
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))

    def draw(novel_view: NovelView, turns: list[Turn]) -> list[Image.Image]:
        return novel_view(Prepared(picture, picture), turns, config.sampling, on_step=lambda done, total: None)

    ways = [
        Way("ours", ours.model.unet.dtype, lambda: draw(ours, turns)),
        Way("single calls", single.model.unet.dtype, lambda: [view for turn in turns for view in draw(single, [turn])]),
    ]
    if config.community:
        call = community(Path(config.community), single.model, config)
        ways.append(Way("community", single.model.unet.dtype, lambda: [call(picture, turn) for turn in turns]))
    take_turns(ways, config.rounds, ours.model.device)
    text, output = table(ways, config, ours.model), Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    (output / "benchmark.json").write_text(json.dumps({way.name: way.seconds for way in ways}, indent=1) + "\n")
    (output / "benchmark.md").write_text(text)
    print(text)
    print(f"report: {output / 'benchmark.md'}")
    return 0


def take_turns(ways: list[Way], rounds: int, device: torch.device) -> None:
    """Measure each way in each round; on a GPU, a round before them warms up."""
    warm_up = device.type == "cuda"
    with tqdm(total=(rounds + warm_up) * len(ways), desc="benchmark", unit=" runs") as bar:
        for counted in [False] * warm_up + [True] * rounds:
            for way in ways:
                start = perf_counter()
                way.views = way.draw()  # pictures on the CPU, so nothing is left to wait for
                if counted:
                    way.seconds.append(perf_counter() - start)
                bar.update()


def table(ways: list[Way], config: BenchmarkConfig, model: Zero123) -> str:
    ours = ways[0]
    name = torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else "CPU"
    lines = [
        f"{config.views} views of one picture at {model.resolution}², {config.sampling.steps} steps of "
        f"{config.sampling.sampler}; {name}, median of {config.rounds}\n",
        "| way | U-Net in | seconds | slowest | ours is faster | mean difference to ours, of 255 |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for way in ways:
        ratio = median(way.seconds) / median(ours.seconds)
        theirs, mine = (
            np.stack([np.asarray(view, dtype=float) for view in views]) for views in (way.views, ours.views)
        )
        difference = np.abs(theirs - mine).mean()
        kind = str(way.dtype).removeprefix("torch.")
        columns = f"{kind} | {median(way.seconds):.2f} | {max(way.seconds):.2f} | {ratio:.2f}× | {difference:.2f}"
        lines.append(f"| {way.name} | {columns} |")
    return "\n".join(lines) + "\n"


def community(file: Path, model: Zero123, config: BenchmarkConfig) -> Callable[[Image.Image, Turn], Image.Image]:
    """The community's pipeline of a model's parts, for one view at a time.

    Raises:
        UserError: there is no such file, it cannot be run here, or the model has parts that it does not know.
    """
    if not isinstance(model.vae, AutoencoderKL) or config.sampling.sampler is not Sampler.ddim:
        raise UserError("community: its pipeline draws with ddim, from checkpoints of Stable Diffusion's parts alone")
    # It knows one precision for all parts; diffusers' own `to` would print a warning of nothing.
    projection = nn.Module.to(copy.deepcopy(model.cc_projection), model.unet.dtype)
    pipeline = _module(file).Zero1to3StableDiffusionPipeline(
        model.vae, model.image_encoder, model.unet, model.scheduler, None, None, projection,
        requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    sampling = config.sampling

    def call(picture: Image.Image, turn: Turn) -> Image.Image:
        return pipeline(
            input_imgs=picture,
            prompt_imgs=picture,
            poses=[list(turn)],
            height=model.resolution,
            width=model.resolution,
            num_inference_steps=sampling.steps,
            guidance_scale=sampling.guidance,
            eta=sampling.eta,
            generator=torch.Generator().manual_seed(sampling.seed),
        ).images[0]

    return call


def _module(file: Path) -> Any:
    if not hasattr(transformers, "CLIPFeatureExtractor"):
        # Its name when that file was written.
        transformers.CLIPFeatureExtractor = transformers.CLIPImageProcessorPil  # type: ignore[attr-defined]
    spec = importlib.util.spec_from_file_location("community_pipeline", file)
    if spec is None or spec.loader is None:
        raise UserError(f"community={file} is no file of Python")
    module = sys.modules["community_pipeline"] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except FileNotFoundError:
        raise UserError(f"community: there is no file {file}") from None
    except ImportError as error:
        raise UserError(f"community: {file} needs another package: {error}") from error
    return module


if __name__ == "__main__":
    run(main, BenchmarkConfig, "inference", "benchmark", help=__doc__)
