"""What the stage's commands can be told; the YAML lies in conf/training and conf/encoding."""

import math
from dataclasses import dataclass
from enum import StrEnum

from conf.options import UserError, option
from conf.tracking import WandbConfig
from pipeline.config import Cluster
from rendering.quality import VERDICTS
from training.model.config import Architecture, Background, PoseVector

QUARTERS = 4  # ranges of timesteps with a loss of their own, least noise first
DUPLICATE = "duplicate"  # of the mesh of an object in front of it
UNWANTED = (*VERDICTS, DUPLICATE)
FAILURES = ("missing", "unreadable", "overflow")  # why an object has no latents


def _require_positive(group: str, config: object, names: tuple[str, ...]) -> None:
    _require(group, config, **dict.fromkeys(names, (1, math.inf)))


def _require(group: str, config: object, **bounds: tuple[float, float]) -> None:
    """The least and the most that an option can be; `group` ends in a dot, or is empty."""
    for name, (least, most) in bounds.items():
        value = getattr(config, name)
        if not least <= value <= most or math.isinf(value):  # nor can it be nan
            end = "" if math.isinf(most) else f" and at most {most:g}"
            raise UserError(f"{group}{name}={value} must be at least {least:g}{end}")


def _require_folder(name: str, path: str, instead: str) -> None:
    if "://" in path:
        raise UserError(f"{name}={path}: it is written to a folder of this machine; {instead}")


class DataKind(StrEnum):
    views = "views"  # the output of pipeline.render or pipeline.pack
    latents = "latents"  # the output of training.encode


@dataclass(frozen=True)
class DataConfig:
    path: str = option("???", "folder or s3:// URL of view shards, the output of pipeline.render")
    kind: DataKind = option(DataKind.views, "views, or latents: the output of training.encode")
    global_batch: int = option(1536, "view pairs of an optimiser step, over all devices and passes")
    batch_size: int = option(32, "view pairs per device and pass, at most; the number of passes follows")
    pairs_per_object: int = option(4, "view pairs that an object gives in an epoch")
    validation_fraction: float = option(0.01, "share of objects, chosen by the hash of their uid, never trained on")
    validation_pairs: int = option(4, "view pairs per validation object")
    exclude: list[str] = option([], f"leave out objects that are any of {', '.join(UNWANTED)}", formerly="without")
    background: Background = option(Background.composite, "composite on white, or `original` for its fringes")
    max_bad_rate: float = option(
        0.05, "stop when a larger part of the objects to train on, or held out, cannot be read"
    )
    workers: int = option(4, "processes that read and decode; 0: the training process itself")
    cache_mb: int = option(
        256, "memory per process for decoded views, which other pairs and epochs then need not decode"
    )

    def __post_init__(self) -> None:
        _require("data.", self, workers=(0, math.inf), cache_mb=(0, math.inf))
        _require_positive("data.", self, ("global_batch", "batch_size", "pairs_per_object", "validation_pairs"))
        if unknown := set(self.exclude) - set(UNWANTED):
            raise UserError(f"data.exclude={min(unknown)}: there is no such word; choose from {', '.join(UNWANTED)}")
        if not 0 <= self.max_bad_rate <= 1:
            raise UserError(f"data.max_bad_rate={self.max_bad_rate}: a rate lies between 0 and 1")


@dataclass(frozen=True)
class OptimizerConfig:
    lr: float = option(1e-4, "learning rate of the U-Net; that of cc_projection is 10 times as high")
    weight_decay: float = option(0.01, "AdamW's weight decay")
    warmup_steps: int = option(100, "steps over which the learning rate rises to its value")
    decay: float = option(0.0, "share of the steps, the last ones, over which it falls to zero along a cosine")
    ema_decay: float = option(0.9999, "decay of the moving average of the U-Net's weights")
    clip_norm: float = option(0.0, "bound on the norm of the gradient; 0: none, as in the original")

    def __post_init__(self) -> None:
        free, share = (0, math.inf), (0, 1)
        _require("optimizer.", self, lr=free, weight_decay=free, warmup_steps=free, clip_norm=free)
        _require("optimizer.", self, decay=share, ema_decay=share)


class Strategy(StrEnum):
    """What the devices of a run share among them."""

    auto = "auto"  # zero2 on several GPUs, ddp on several CPU processes, single on one device
    single = "single"
    ddp = "ddp"  # every device has everything
    zero1 = "zero1"  # DeepSpeed: each keeps a share of the optimiser's state,
    zero2 = "zero2"  # of the gradients as well,
    zero3 = "zero3"  # and of the weights

    @property
    def is_zero(self) -> bool:
        return self in (Strategy.zero1, Strategy.zero2, Strategy.zero3)


class Precision(StrEnum):
    """What the passes compute in; weights, optimiser and averages are float32."""

    auto = "auto"  # bfloat16 on a GPU that has it; on CPUs its attention is slower
    float32 = "float32"
    bfloat16 = "bfloat16"


@dataclass(frozen=True)
class TrainerConfig:
    max_steps: int = option(100_000, "optimiser steps")
    strategy: Strategy = option(Strategy.auto, f"what devices share: {', '.join(Strategy)}")
    accelerator: str = option("auto", "auto, cpu or gpu")
    devices: int = option(0, "processes per machine; 0: one for each GPU, or as many as torchrun or Slurm started")
    num_nodes: int = option(0, "machines; 0: as many as torchrun or Slurm says, else one")
    precision: Precision = option(Precision.auto, "auto, float32 or bfloat16 (autocast)")
    deterministic: bool = option(False, "on a GPU as well, equal runs to the last bit; slower")
    threads: int = option(0, "torch's threads on a CPU; 0: as many as torch chooses")
    compile: bool | None = option(
        None, "compile the U-Net, some minutes before the first step; null: on a GPU, not under ZeRO-3"
    )
    channels_last: bool | None = option(None, "memory layout of the U-Net; null: where it is compiled")
    checkpointing: bool = option(False, "compute activations twice: a third more work, a fraction of the memory")
    checkpoint_every: int = option(500, "steps between checkpoints to resume from")
    keep: int = option(2, "checkpoints kept; the model of the lowest validation loss is kept besides")
    validate_every: int = option(500, "steps between validations; 0: none")
    sample_every: int = option(1000, "steps between picture grids; 0: only at the end")
    log_every: int = option(10, "steps between lines of metrics")

    def __post_init__(self) -> None:
        counts = ("devices", "num_nodes", "threads", "validate_every", "sample_every")
        _require("trainer.", self, **dict.fromkeys(counts, (0, math.inf)))
        _require_positive("trainer.", self, ("max_steps", "checkpoint_every", "keep", "log_every"))
        if self.compile and self.strategy is Strategy.zero3:
            raise UserError("trainer.compile=true: ZeRO-3 gathers weights layer by layer; use zero2, or compile=false")


@dataclass(frozen=True)
class SampleConfig:
    """The picture grid: input, truth and what the model makes of it, for pairs of validation objects."""

    rows: int = option(6, "pairs in the grid")
    steps: int = option(50, "DDIM steps")
    guidance: float = option(3.0, "classifier-free guidance")
    eta: float = option(1.0, "DDIM's η")

    def __post_init__(self) -> None:
        _require_positive("sample.", self, ("rows",))
        _require("sample.", self, steps=(1, 1000), eta=(0, 1))


class Artifacts(StrEnum):
    """What W&B is given besides figures and pictures."""

    none = "none"
    model = "model"  # the run's model, at its end
    all = "all"  # and the best one so far, each time


@dataclass(frozen=True)
class RayConfig:
    address: str | None = option(None, "train by Ray Train: a cluster's address, auto, or local; null: without Ray")


@dataclass(frozen=True)
class FinetuneConfig:
    output: str = option("outputs/finetune", "folder of the run; the same command continues it")
    seed: int = option(0, "seed of weights, pairs, timesteps and noises")
    data: DataConfig = option(DataConfig(), "view shards")
    model: Architecture = option(Architecture(), "what is trained")
    optimizer: OptimizerConfig = option(OptimizerConfig(), "how it learns")
    trainer: TrainerConfig = option(TrainerConfig(), "how long, where and how often to look")
    sample: SampleConfig = option(SampleConfig(), "the picture grid")
    mirror: str | None = option(None, "s3:// URL that gets a copy of the run, and a new machine continues from")
    artifacts: Artifacts = option(
        Artifacts.model, "W&B artifacts: none, model or all; where there is a mirror, its URLs"
    )
    ray: RayConfig = option(RayConfig(), "who starts the processes")
    wandb: WandbConfig = option(WandbConfig(), "Weights & Biases")

    def __post_init__(self) -> None:
        _require("", self, seed=(0, math.inf))
        _require_folder("output", self.output, "mirror=s3://… keeps a copy elsewhere")
        if self.mirror and self.trainer.keep < 2:
            raise UserError("trainer.keep=1: a mirror uploads a checkpoint while the next is written; keep 2 at least")


class EncodePrecision(StrEnum):
    auto = "auto"  # half on a GPU, single on a CPU
    single = "single"
    half = "half"  # on a GPU; what is written is in half precision in any case


@dataclass(frozen=True)
class EncodeConfig:
    path: str = option("???", "folder or s3:// URL of view shards, the output of pipeline.render")
    output: str = option("outputs/latents", "folder or s3:// URL for the latent shards")
    seed: int = option(0, "seed of encoders that are not pretrained, as that of training.finetune")
    background: Background = option(Background.composite, "composite on white, or `original` for its fringes")
    device: str = option("auto", "auto (GPUs if Ray has any at the start), cpu, or cuda (for a cluster that grows)")
    precision: EncodePrecision = option(EncodePrecision.auto, "auto (half on a GPU, single on a CPU), single, half")
    batch_size: int = option(16, "views encoded together, of one object")
    threads: int = option(1, "cores of a worker")
    max_failure_rate: float = option(0.05, "exit with 1 when a larger part of the objects has no latents")
    retry: list[str] = option([], f"encode shards again in which objects failed for one of {', '.join(FAILURES)}")
    model: Architecture = option(Architecture(), "the model whose encoders these are")
    cluster: Cluster = option(Cluster(), "where Ray runs")

    def __post_init__(self) -> None:
        _require("", self, seed=(0, math.inf), max_failure_rate=(0, 1))
        _require_positive("", self, ("batch_size", "threads"))
        if self.device not in ("auto", "cpu", "cuda"):
            raise UserError(f"device={self.device} is none of auto, cpu, cuda")
        if unknown := set(self.retry) - set(FAILURES):
            raise UserError(f"retry={min(unknown)}: there is no such reason; choose from {', '.join(FAILURES)}")


@dataclass(frozen=True)
class LoadingConfig:
    original: str | None = option(None, "folder of PNG and cameras, the output of pipeline.export")
    views: str | None = option(None, "folder or URL of view shards")
    latents: str | None = option(None, "folder or URL of latent shards")
    resolution: int = option(256, "side of the pictures to come out, pixels")
    batch_size: int = option(32, "pairs in a batch")
    pairs_per_object: int = option(4, "pairs that an object gives each time its shard is read")
    cache_mb: int = option(0, "memory for decoded views; 0: every view is decoded each time")
    seconds: float = option(2.0, "CPU seconds for each way and round")

    def __post_init__(self) -> None:
        _require_positive("", self, ("resolution", "batch_size", "pairs_per_object"))
        _require("", self, cache_mb=(0, math.inf), seconds=(0.01, math.inf))


class Layout(StrEnum):
    """How a folder is laid out."""

    community = "community"  # cc_projection/, for Zero1to3StableDiffusionPipeline: ours
    threestudio = "threestudio"  # clip_camera_projection/, for threestudio's Zero123Pipeline


class Dtype(StrEnum):
    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


@dataclass(frozen=True)
class ConvertConfig:
    source: str = option(
        "???",
        ".ckpt or .safetensors of the original's layout, folder in diffusers', or org/name[/path] on the hub",
    )
    target: str = option("???", "folder to be written; a name that ends in .ckpt: one file for the original's code")
    layout: Layout = option(Layout.community, "of a folder: community (also ours), or threestudio")
    ema: bool = option(True, "take the moving average of the U-Net where the source has it, else its last weights")
    pose_vector: PoseVector | None = option(None, "zero123 or stable_zero123; null: what the source says, else zero123")
    image_encoder: str | None = option(None, "folder of a CLIP vision model, for a source that has none or another")
    dtype: Dtype = option(Dtype.float32, "precision of what is written; half precision is read as well")

    def __post_init__(self) -> None:
        _require_folder("target", self.target, "name one, and copy that")


@dataclass(frozen=True)
class BenchmarkConfig:
    """How fast a training step is, on one device."""

    output: str = option("outputs/benchmark", "folder of the report")
    seed: int = option(0, "seed of weights and of made-up pairs")
    model: Architecture = option(Architecture(), "what is trained")
    device: str = option("auto", "auto, cpu, cuda or cuda:1")
    precision: Precision = option(Precision.auto, "auto, float32 or bfloat16 (autocast)")
    batch_sizes: list[int] = option([], "pairs per step; none: 1 on a CPU, on a GPU doubling from 8 until it is full")
    ablation: bool = option(True, "leave out each optimisation alone, and add them one by one")
    compile: bool | None = option(None, "whether our step is compiled; null: on a GPU")
    steps: int = option(10, "steps in a block, all of one way to take them")
    rounds: int = option(3, "blocks of each way, in turns; their median counts")
    threads: int = option(0, "torch's threads on a CPU; 0: as many as torch chooses")

    def __post_init__(self) -> None:
        _require_positive("", self, ("steps", "rounds"))
        _require("", self, seed=(0, math.inf), threads=(0, math.inf))
        _require_folder("output", self.output, "name one")
        if any(size < 1 for size in self.batch_sizes):
            raise UserError(f"batch_sizes={list(self.batch_sizes)} must be at least 1 each")


@dataclass(frozen=True)
class PlotConfig:
    runs: list[str] = option([], "folders of runs, with commas: outputs/run,outputs/other")
    output: str | None = option(None, "picture to write, .png, .svg or .pdf; null: curves.png in the first run")
