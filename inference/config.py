"""The typed configuration of the stage's commands; the YAML lies in conf/inference."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from conf.options import UserError, option


class Sampler(StrEnum):
    ddim = "ddim"  # the original's
    dpm_solver = "dpm_solver"  # DPM-Solver++(2M): as sharp in 20 steps
    euler = "euler"


class Null(StrEnum):
    """The context that guidance leads away from."""

    after_projection = "after_projection"  # zeros, as in the original's inference
    trained = "trained"  # cc_projection of no embedding and the pose, what training saw


class Precision(StrEnum):
    auto = "auto"  # float16 on a GPU; on a CPU bfloat16 where it has that and the model an autoencoder, else float32
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


@dataclass(frozen=True)
class Sampling:
    """How pictures are drawn from the model."""

    steps: int = option(50, "steps from noise to picture; ddim needs 50, dpm_solver 20")
    guidance: float = option(3.0, "classifier-free guidance; 1 is none")
    image_guidance: float | None = option(None, "another scale for the input picture than for the pose; null: the same")
    null: Null = option(Null.after_projection, "what guidance leads away from: after_projection or trained")
    sampler: Sampler = option(Sampler.ddim, "ddim, dpm_solver or euler")
    eta: float = option(1.0, "noise of ddim's steps, from 0 (deterministic) to 1 (as DDPM)")
    seed: int = option(0, "another seed, another guess at what the picture does not show")

    def __post_init__(self) -> None:
        for name, kind in (("sampler", Sampler), ("null", Null)):
            if getattr(self, name) not in list(kind):
                raise UserError(f"sampling.{name}={getattr(self, name)} is none of {', '.join(kind)}")
            object.__setattr__(self, name, kind(getattr(self, name)))  # a library's users write plain strings
        if not 1 <= self.steps <= 500:
            raise UserError(f"sampling.steps={self.steps} is outside 1..500")
        scales = [self.guidance] + ([] if self.image_guidance is None else [self.image_guidance])
        if not (0 <= self.eta <= 1 and all(0 <= scale <= 1000 for scale in scales)):
            raise UserError(
                "sampling.eta lies between 0 and 1, sampling.guidance and image_guidance between 0 and 1000"
            )
        if not 0 <= self.seed < 2**32:
            raise UserError(f"sampling.seed={self.seed} is outside 0..{2**32 - 1}")


@dataclass(frozen=True)
class ViewsConfig:
    """From one picture to its views."""

    checkpoint: str = option(
        "???", "<run>/model of training.finetune, org/name on the hub, or whatever training.convert reads"
    )
    poses: list[Any] = option([], "turns [Δpolar, Δazimuth, Δradius]: degrees, degrees, object sizes")
    orbit: int = option(0, "instead: so many views once around")
    grid: str = option("", "instead: ROWSxCOLUMNS, as 3x8: rows from 30° above to 30° below, each once around")
    cameras: str = option("", "instead: .npy or JSON of world→camera matrices [N, 3, 4], the input's among them")
    input_camera: int = option(0, "which of them is the input's")
    samples: int = option(1, "guesses for each pose; several also show where they differ")
    elevation: str = option(
        "estimate", "of the input's camera, degrees above the horizon; estimate (cameras= give it); none"
    )
    cutout: str = option("auto", "removes a background that no alpha does: auto, u2netp, isnet, an .onnx file, or none")
    fill: float | None = option(None, "the object's share of the frame, to 1; null: as in training; 0: keep the frame")
    device: str = option("auto", "auto, cpu or cuda")
    precision: Precision = option(
        Precision.auto, "auto (half on a GPU, and on CPUs made for it), float32, bfloat16 or float16"
    )
    compile: bool = option(False, "compile the U-Net: minutes at the start, for many views on a GPU")
    sampling: Sampling = option(Sampling(), "how pictures are drawn")

    def __post_init__(self) -> None:
        if not 1 <= self.samples <= 64:
            raise UserError(f"samples={self.samples} is outside 1..64")
        check_fill(self.fill)


def check_fill(fill: float | None) -> None:
    """Raise `UserError` unless `fill` is None, 0 or a share of the frame."""
    if fill and not 0.1 <= fill <= 1:
        raise UserError(f"fill={fill}: must be 0, between 0.1 and 1, or left out (null: as in training)")


@dataclass(frozen=True)
class SampleConfig(ViewsConfig):
    image: str = option("???", "the picture of one object, or a folder of such pictures")
    output: str = option("outputs/sample", "folder for the pictures")


@dataclass(frozen=True)
class TextToViewsConfig(ViewsConfig):
    prompt: str = option("???", "the object, in words")
    suffix: str = option(", a single object, centred, on a plain white background", "added to the words")
    text_to_image: str = option(
        "stable-diffusion-v1-5/stable-diffusion-v1-5", "a pipeline of diffusers: a folder, or a name on the hub"
    )
    text_steps: int | None = option(None, "steps of that pipeline; null: its own")
    output: str = option("outputs/text_to_views", "folder for the pictures")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < len(self.prompt.strip()) <= 1000:
            raise UserError("prompt: give 1 to 1000 characters")
        if self.text_steps is not None and not 1 <= self.text_steps <= 500:
            raise UserError(f"text_steps={self.text_steps} is outside 1..500")


@dataclass(frozen=True)
class BenchmarkConfig:
    checkpoint: str = option("???", "whose speed is measured, as in inference.sample")
    views: int = option(12, "of one picture")
    community: str = option("", "diffusers' examples/community/pipeline_zero1to3.py, to be run beside")
    rounds: int = option(3, "in which the ways take turns")
    output: str = option("outputs/inference_benchmark", "folder for benchmark.md and benchmark.json")
    device: str = option("auto", "auto, cpu or cuda")
    precision: Precision = option(
        Precision.auto, "auto (half on a GPU, and on CPUs made for it), float32, bfloat16 or float16"
    )
    compile: bool = option(False, "compile our U-Net")
    sampling: Sampling = option(Sampling(), "how pictures are drawn")

    def __post_init__(self) -> None:
        if not (1 <= self.views <= 1000 and 1 <= self.rounds <= 1000):
            raise UserError("views and rounds lie between 1 and 1000")


@dataclass(frozen=True)
class DemoConfig:
    checkpoint: str = option(
        "???", "<run>/model of training.finetune, org/name on the hub, or whatever training.convert reads"
    )
    host: str = option("127.0.0.1", "this machine alone; 0.0.0.0 lets in everyone who reaches it")
    port: int = option(7860, "0: any that is free")
    cutout: str = option("auto", "removes a background that no alpha does: auto, u2netp, isnet, an .onnx file, or none")
    fill: float | None = option(None, "the object's share of the frame, to 1; null: as in training; 0: keep the frame")
    device: str = option("auto", "auto, cpu or cuda")
    precision: Precision = option(
        Precision.auto, "auto (half on a GPU, and on CPUs made for it), float32, bfloat16 or float16"
    )
    compile: bool = option(False, "compile the U-Net: minutes at the start and for each other number of views")
    preview_steps: int = option(8, "of dpm_solver, shown before the view itself")
    most_steps: int = option(200, "that a visitor may ask for")
    most_views: int = option(48, "that a visitor may ask for at a time, once around")
    max_megabytes: int = option(20, "of a picture")
    queue: int = option(16, "visitors that may wait; more are told to come back")
    sessions: int = option(100, "visitors whose pictures are kept; longest unseen ones go")
    sampling: Sampling = option(Sampling(), "how pictures are drawn, until a visitor says otherwise")

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise UserError(f"port={self.port} is outside 0..65535")
        check_fill(self.fill)
        bounds = {"preview_steps": 500, "most_steps": 500, "most_views": 1000, "max_megabytes": 1000}
        for name, most in {**bounds, "queue": 1000, "sessions": 10_000}.items():
            if not 1 <= getattr(self, name) <= most:
                raise UserError(f"{name}={getattr(self, name)} is outside 1..{most}")
        if self.sampling.steps > self.most_steps:
            raise UserError(f"sampling.steps={self.sampling.steps} is more than most_steps={self.most_steps}")


@dataclass(frozen=True)
class ReportConfig:
    views: str = option("???", "folder or URL of view shards, the output of pipeline.render")
    run: str = option("???", "folder of the run, the output of training.finetune")
    output: str = option("outputs/report.html", "the page to write")
    rows: int = option(24, "view pairs to show and to score")
    limit: int = option(200, "objects on the contact sheet")
    device: str = option("auto", "auto, cpu or cuda")
    sampling: Sampling = option(Sampling(), "how pictures are drawn")
