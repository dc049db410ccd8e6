"""Measure variants of sampling alternately, and report their times and the differences between their pictures."""

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
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from conf.options import UserError, first_line
from inference.config import BenchmarkConfig, Sampler
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


class Float32NoiseScheduler(DDIMScheduler):
    """DDIM that draws its noise in float32 for samples of any precision, as `NovelView` does.

    A seed gives other random numbers in float16 than in float32 with some releases of torch (2.11).
    """

    def step(  # type: ignore[override]
        self,
        model_output: Tensor,
        timestep: int,
        sample: Tensor,
        eta: float = 0.0,
        generator: torch.Generator | None = None,
        return_dict: bool = True,
    ) -> Any:
        """Return the sample of the previous timestep."""
        noise = float32_noise(sample, generator)
        return super().step(model_output, timestep, sample, eta, variance_noise=noise, return_dict=return_dict)


def float32_noise(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return standard normal noise, drawn in float32, of the shape, device and precision of a tensor."""
    return randn_tensor(like.shape, generator=generator, device=like.device, dtype=torch.float32).to(like.dtype)


def community_pipeline(
    file: Path, model: Zero123, config: BenchmarkConfig
) -> Callable[[Image.Image, Turn], Image.Image]:
    """Return a function that samples one view with the community pipeline and the model's weights.

    Raises:
        UserError: The file cannot be executed, or the pipeline does not support the model or the sampler.
    """
    if not isinstance(model.vae, AutoencoderKL) or config.sampling.sampler is not Sampler.ddim:
        raise UserError(
            "community: the pipeline supports only sampling.sampler=ddim and checkpoints with Stable Diffusion's parts"
        )
    # The pipeline has one precision for all parts; the method `to` of diffusers' models would print a warning.
    projection = nn.Module.to(copy.deepcopy(model.cc_projection), model.unet.dtype)
    scheduler = Float32NoiseScheduler.from_config(model.scheduler.config)
    pipeline = _pipeline_class(file)(
        model.vae, model.image_encoder, model.unet, scheduler, None, None, projection, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    sampling, size = config.sampling, model.latent_size
    latent = torch.empty(1, model.latent_channels, size, size, device=model.device, dtype=model.unet.dtype)

    def call(picture: Image.Image, turn: Turn) -> Image.Image:
        generator = torch.Generator().manual_seed(sampling.seed)
        return pipeline(
            latents=float32_noise(latent, generator),
            input_imgs=picture,
            prompt_imgs=picture,
            poses=[list(turn)],
            height=model.resolution,
            width=model.resolution,
            num_inference_steps=sampling.steps,
            guidance_scale=sampling.guidance,
            eta=sampling.eta,
            generator=generator,
        ).images[0]

    return call


def _pipeline_class(file: Path) -> Any:
    """Execute the file of the community pipeline, and return its class."""
    if not hasattr(transformers, "CLIPFeatureExtractor"):
        # The name of the class when the file was written.
        transformers.CLIPFeatureExtractor = transformers.CLIPImageProcessorPil  # type: ignore[attr-defined]
    spec = importlib.util.spec_from_file_location("community_pipeline", file)
    if spec is None or spec.loader is None:
        raise UserError(f"community={file}: is not a Python file")
    module = sys.modules["community_pipeline"] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return module.Zero1to3StableDiffusionPipeline
    except FileNotFoundError:
        raise UserError(f"community={file}: there is no such file") from None
    except ImportError as error:
        raise UserError(f"community={file}: needs another package ({error}); install it") from error
    except Exception as error:  # the file is code of others
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(f"community={file}: has no Zero-1-to-3 pipeline ({reason}); give diffusers' file") from error
