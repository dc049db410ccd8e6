"""Define the options of the inference commands; their YAML files lie in conf/inference."""

from dataclasses import dataclass
from enum import StrEnum
from numbers import Integral, Real
from typing import Any

from conf.options import UserError, option
from training.model.hardware.precision import Precision

CHECKPOINT_HELP = "<run>/model of training.finetune, org/name on the hub, or a checkpoint that training.convert reads"
DEFAULT_CHECKPOINT_HELP = f"{CHECKPOINT_HELP}; null: the model that comes with the project, models/small"
CUTOUT_HELP = "removes the background of a picture without alpha: auto, u2netp, isnet, an .onnx file, or none"
FILL_HELP = "the object's share of the frame, 0.1 to 1; null: as in training; 0: keep the frame"
DEVICE_HELP = "auto, cpu, cuda or cuda:1"
PRECISION_HELP = "auto (float16 on a GPU, bfloat16 on a CPU with units for it), float32, bfloat16 or float16"

MIN_ORBIT_VIEWS = 2  # of the web page
GUIDANCE_RANGE = 0, 20  # of the web page


def require_range(option: str, number: float, lowest: float, highest: float) -> None:
    """Raise `UserError` unless `lowest <= number <= highest`."""
    if not lowest <= number <= highest:
        raise UserError(f"{option}={number}: must be between {lowest} and {highest}")


def _require_kind(option: str, value: object, kind: type, name: str) -> None:
    """Raise `UserError` unless a value that a caller of the library gives is of a kind."""
    if not isinstance(value, kind):
        raise UserError(f"{option}={value}: must be {name}")


def check_fill(fill: float | None) -> None:
    """Raise `UserError` unless `fill` is None, 0 or a share of the frame."""
    if fill and not 0.1 <= fill <= 1:
        raise UserError(f"fill={fill}: must be 0, between 0.1 and 1, or left out (null: as in training)")


class Sampler(StrEnum):
    """The solver of the reverse diffusion."""

    ddim = "ddim"  # of the original code
    dpm_solver = "dpm_solver"  # DPM-Solver++(2M): as sharp in 20 steps
    euler = "euler"


class Unconditional(StrEnum):
    """The context token of the unconditional prediction in classifier-free guidance."""

    after_projection = "after_projection"  # zeros, as in the original's inference
    trained = "trained"  # cc_projection of a zero embedding and the pose, as in training


@dataclass(frozen=True)
class Sampling:
    """Settings of the sampler."""

    steps: int = option(50, "denoising steps; ddim needs 50, dpm_solver 20")
    guidance: float = option(3.0, "classifier-free guidance scale; 1 is none")
    image_guidance: float | None = option(None, "guidance scale of the input picture; null: as of the pose")
    unconditional: Unconditional = option(
        Unconditional.after_projection,
        "context of the unconditional prediction: after_projection or trained",
        formerly="null",
    )
    sampler: Sampler = option(Sampler.ddim, "ddim, dpm_solver or euler")
    eta: float = option(1.0, "noise of the ddim steps, from 0 (deterministic) to 1 (as DDPM)")
    seed: int = option(0, "seed of the noise")

    def __post_init__(self) -> None:
        for name, kind in (("sampler", Sampler), ("unconditional", Unconditional)):
            if getattr(self, name) not in list(kind):
                raise UserError(f"sampling.{name}={getattr(self, name)}: must be one of {', '.join(kind)}")
            object.__setattr__(self, name, kind(getattr(self, name)))  # callers of the library pass plain strings
        for name in ("steps", "seed"):
            _require_kind(f"sampling.{name}", getattr(self, name), Integral, "a whole number")
            object.__setattr__(self, name, int(getattr(self, name)))  # NumPy's too
        for name in ("guidance", "image_guidance", "eta"):
            if name != "image_guidance" or self.image_guidance is not None:
                _require_kind(f"sampling.{name}", getattr(self, name), Real, "a number")
        least = 2 if self.sampler is Sampler.ddim else 1  # a single one would begin at timestep 1, not at noise
        require_range("sampling.steps", self.steps, least, 500)
        require_range("sampling.guidance", self.guidance, 0, 1000)
        if self.image_guidance is not None:
            require_range("sampling.image_guidance", self.image_guidance, 0, 1000)
        require_range("sampling.eta", self.eta, 0, 1)
        require_range("sampling.seed", self.seed, 0, 2**32 - 1)


@dataclass(frozen=True)
class ViewsConfig:
    """Options of the commands that sample views of one picture."""

    checkpoint: str | None = option(None, DEFAULT_CHECKPOINT_HELP)
    poses: list[Any] = option([], "camera turns [Δpolar, Δazimuth, Δradius]: degrees, degrees, object sizes")
    orbit: int = option(0, "in place of poses: number of views on a circle around the object")
    grid: str = option("", "in place of poses: ROWSxCOLUMNS, such as 3x8: rows from 30° above to 30° below")
    cameras: str = option("", "in place of poses: .npy or JSON file of world→camera matrices [N, 3, 4]")
    input_camera: int = option(0, "index of the input's camera in cameras")
    samples: int = option(1, "samples of each view; with several, their variance is shown too")
    elevation: str = option(
        "estimate", "of the input camera, degrees above the horizon; estimate (or as in cameras); none"
    )
    cutout: str = option("auto", CUTOUT_HELP)
    fill: float | None = option(None, FILL_HELP)
    device: str = option("auto", DEVICE_HELP)
    precision: Precision = option(Precision.auto, PRECISION_HELP)
    compile: bool = option(False, "compile the U-Net: takes minutes, pays off for many views on a GPU")
    sampling: Sampling = option(Sampling(), "settings of the sampler")

    def __post_init__(self) -> None:
        require_range("samples", self.samples, 1, 64)
        check_fill(self.fill)


@dataclass(frozen=True)
class SampleConfig(ViewsConfig):
    """Options of `inference.sample`."""

    image: str = option("???", "picture of one object, or a folder of such pictures")
    output: str = option("outputs/sample", "folder of the views")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.image:  # it would be the working folder
            raise UserError("image: is empty; give a picture, or a folder of pictures")


@dataclass(frozen=True)
class TextToViewsConfig(ViewsConfig):
    """Options of `inference.text_to_views`."""

    prompt: str = option("???", "description of the object")
    suffix: str = option(", a single object, centred, on a plain white background", "appended to the prompt")
    text_to_image: str = option(
        "stable-diffusion-v1-5/stable-diffusion-v1-5", "diffusers pipeline: a folder, or org/name on the hub"
    )
    text_steps: int | None = option(None, "denoising steps of that pipeline; null: its default")
    output: str = option("outputs/text_to_views", "folder of the views")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < len(self.prompt.strip()) <= 1000:
            raise UserError(f"prompt: has {len(self.prompt.strip())} characters; give 1 to 1000")
        if self.text_steps is not None:
            require_range("text_steps", self.text_steps, 1, 500)


class BenchmarkSubject(StrEnum):
    """Subject of `inference.benchmark`."""

    views = "views"
    reconstruction = "reconstruction"


@dataclass(frozen=True)
class BenchmarkConfig:
    """Options of `inference.benchmark`."""

    subject: BenchmarkSubject = option(BenchmarkSubject.views, "views: sampling; reconstruction: rendering a field")
    checkpoint: str | None = option(None, f"{CHECKPOINT_HELP}; needed for subject=views")
    views: int = option(12, "views of one picture")
    community: str = option("", "diffusers' examples/community/pipeline_zero1to3.py, to be measured too")
    rounds: int = option(3, "measurements of each variant, taken in turns")
    output: str = option("outputs/inference_benchmark", "folder of benchmark.md and benchmark.json")
    device: str = option("auto", DEVICE_HELP)
    precision: Precision = option(Precision.auto, PRECISION_HELP)
    compile: bool = option(False, "compile the U-Net of the variant `ours`")
    sampling: Sampling = option(Sampling(), "settings of the sampler")

    def __post_init__(self) -> None:
        require_range("views", self.views, 1, 1000)
        require_range("rounds", self.rounds, 1, 1000)
        if self.checkpoint is None and self.subject is BenchmarkSubject.views:
            raise UserError("checkpoint=null: is needed to sample views; give a checkpoint, or subject=reconstruction")


@dataclass(frozen=True)
class DemoConfig:
    """Options of `inference.demo`."""

    checkpoint: str | None = option(None, DEFAULT_CHECKPOINT_HELP)
    host: str = option("127.0.0.1", "address to listen on: this machine alone; 0.0.0.0: every network")
    port: int = option(7860, "port to listen on; 0: any that is free")
    cutout: str = option("auto", CUTOUT_HELP)
    fill: float | None = option(None, FILL_HELP)
    device: str = option("auto", DEVICE_HELP)
    precision: Precision = option(Precision.auto, PRECISION_HELP)
    compile: bool = option(False, "compile the U-Net: takes minutes at the start and for each new number of views")
    preview_steps: int = option(8, "dpm_solver steps of the preview")
    max_steps: int = option(200, "maximum number of denoising steps of a request", formerly="most_steps")
    max_views: int = option(48, "maximum number of views of a requested orbit", formerly="most_views")
    reconstruction_views: int = option(24, "views that a 3D model is fitted to, in three rings; 0: no 3D models")
    max_megabytes: int = option(20, "largest picture that a visitor may upload")
    queue: int = option(16, "requests that may wait; further ones are refused")
    sessions: int = option(100, "visitors whose pictures are kept; the longest inactive ones are dropped first")
    sampling: Sampling = option(Sampling(), "initial settings of the sampler")

    def __post_init__(self) -> None:
        require_range("port", self.port, 0, 65535)
        check_fill(self.fill)
        require_range("sampling.guidance", self.sampling.guidance, *GUIDANCE_RANGE)
        require_range("max_views", self.max_views, MIN_ORBIT_VIEWS, 1000)
        limits = {"preview_steps": 500, "max_steps": 500, "max_megabytes": 1000}
        for name, highest in {**limits, "queue": 1000, "sessions": 10_000}.items():
            require_range(name, getattr(self, name), 1, highest)
        if self.reconstruction_views:
            require_range("reconstruction_views", self.reconstruction_views, 9, 300)
        if self.sampling.steps > self.max_steps:
            raise UserError(f"sampling.steps={self.sampling.steps}: must be at most max_steps={self.max_steps}")


@dataclass(frozen=True)
class ReportConfig:
    """Options of `inference.report`."""

    views: str = option("???", "folder or URL of view shards, as in data.path of the run; several: separated by commas")
    run: str = option("???", "folder of the run, the output of training.finetune")
    output: str = option("outputs/report.html", "HTML page to write")
    start: str | None = option(None, "checkpoint that the run started from, to compare with; null: none")
    orbits: int = option(0, "number of held-out objects to show as orbits; with start, before and after training")
    pictures: list[str] = option([], "pictures to show as orbits, sampled by start if given, else by the run's model")
    elevation: float = option(
        20.0, "of the pictures' cameras, degrees above the horizon; only Stable-Zero123's pose vector holds it"
    )
    others: str | None = option(None, "view shards of further objects to show as pictures; null: none")
    other_orbits: int = option(4, "number of objects of others to show")
    orbit_views: int = option(12, "views of an orbit")
    rows: int = option(24, "view pairs to show and to score")
    limit: int = option(200, "objects on the contact sheet")
    device: str = option("auto", DEVICE_HELP)
    sampling: Sampling = option(Sampling(), "settings of the sampler")

    def __post_init__(self) -> None:
        ranges = {
            "orbits": (0, 1000),
            "other_orbits": (0, 1000),
            "orbit_views": (1, 1000),
            "rows": (1, 100_000),
            "limit": (0, 100_000),
        }
        for name, limits in ranges.items():
            require_range(name, getattr(self, name), *limits)
        require_range("elevation", self.elevation, -90, 90)
