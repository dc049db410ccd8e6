"""Define the options of the training commands; their YAML files are in conf/training and conf/encoding."""

import math
from dataclasses import dataclass
from enum import StrEnum

from conf.options import UserError, option
from conf.tracking import WandbConfig
from pipeline.config import Cluster
from rendering.quality import VERDICTS
from training.model.config import Architecture, Background, PoseVector, TimestepDensity
from training.model.hardware.precision import Precision
from training.option_checks import require, require_choice, require_local, require_positive

QUARTERS = 4  # equal ranges of timesteps whose losses are reported, least noise first
DUPLICATE = "duplicate"  # verdict of an object whose mesh equals that of an earlier object
UNWANTED = (*VERDICTS, DUPLICATE)
TRAINING_PRECISIONS = (Precision.auto, Precision.float32, Precision.bfloat16)
ENCODE_PRECISIONS = (Precision.auto, Precision.float32, Precision.float16)
WEIGHT_PRECISIONS = (Precision.float32, Precision.float16, Precision.bfloat16)
FAILURES = ("missing", "unreadable", "overflow")  # reasons why an object has no latents


class DataKind(StrEnum):
    """Contents of shards."""

    views = "views"  # images, from pipeline.render or pipeline.pack
    latents = "latents"  # encoded images, from training.encode


@dataclass(frozen=True)
class DataConfig:
    """The pairs of views to train on."""

    path: str = option("???", "folder or s3:// URL of view shards (pipeline.render), or several, separated by commas")
    weights: list[float] = option([], "factor of pairs_per_object for each folder, as [1,1,0.5]; empty: 1 each")
    kind: DataKind = option(DataKind.views, "views, or latents: the output of training.encode")
    global_batch: int = option(1536, "view pairs per optimiser step, over all devices and accumulation passes")
    batch_size: int = option(
        32, "maximum view pairs per device and pass; it determines the number of accumulation passes"
    )
    pairs_per_object: int = option(4, "view pairs per object and epoch")
    validation_fraction: float = option(0.01, "share of objects held out, chosen by the hash of their uid")
    validation_pairs: int = option(4, "view pairs per validation object")
    exclude: list[str] = option(
        [], f"exclude objects with one of these verdicts: {', '.join(UNWANTED)}", formerly="without"
    )
    background: Background = option(
        Background.composite, "composite (blend with white) or original (as the original code does it, with fringes)"
    )
    reflect: bool = option(False, "reflect half of the training pairs left to right; for views, not for latents")
    max_bad_rate: float = option(0.05, "stop when a larger share of the training or validation objects is unreadable")
    workers: int = option(4, "processes that read and decode; 0: read in the training process")
    cache_mb: int = option(256, "memory per loader process for views, MiB; what fits is read and decoded once")

    def __post_init__(self) -> None:
        require("data.", self, workers=(0, math.inf), cache_mb=(0, math.inf))
        require_positive("data.", self, ("global_batch", "batch_size", "pairs_per_object", "validation_pairs"))
        if any(not 0 < weight < math.inf for weight in self.weights):
            raise UserError(f"data.weights={list(self.weights)}: each must be a number above 0")
        if unknown := set(self.exclude) - set(UNWANTED):
            raise UserError(f"data.exclude={min(unknown)}: unknown verdict; use some of {', '.join(UNWANTED)}")
        if self.reflect and self.kind is DataKind.latents:
            raise UserError("data.reflect=true: latents cannot be reflected; use data.kind=views, or reflect=false")
        if not 0 <= self.max_bad_rate <= 1:
            raise UserError(f"data.max_bad_rate={self.max_bad_rate}: must be between 0 and 1")


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW, its schedule and the moving average."""

    lr: float = option(1e-4, "learning rate of the U-Net; cc_projection learns 10 times as fast")
    weight_decay: float = option(0.01, "AdamW's weight decay")
    warmup_steps: int = option(100, "steps of linear warm-up of the learning rate")
    decay: float = option(0.0, "final share of the steps, in which the learning rate decays to zero along a cosine")
    ema_decay: float = option(0.9999, "decay of the moving average of the U-Net's weights")
    clip_norm: float = option(0.0, "maximum norm of the gradient; 0: no clipping, as in the original")

    def __post_init__(self) -> None:
        unbounded, share = (0, math.inf), (0, 1)
        require("optimizer.", self, lr=unbounded, weight_decay=unbounded, warmup_steps=unbounded, clip_norm=unbounded)
        require("optimizer.", self, decay=share, ema_decay=share)


class Strategy(StrEnum):
    """How the devices of a run share the training state."""

    auto = "auto"  # zero2 on several GPUs, ddp on several CPU processes, single on one device
    single = "single"  # one device
    ddp = "ddp"  # every device holds everything
    zero1 = "zero1"  # DeepSpeed: the optimiser's state is sharded
    zero2 = "zero2"  # and the gradients
    zero3 = "zero3"  # and the weights

    @property
    def is_zero(self) -> bool:
        """Whether this is one of DeepSpeed's ZeRO stages."""
        return self in (Strategy.zero1, Strategy.zero2, Strategy.zero3)


@dataclass(frozen=True)
class TrainerConfig:
    """Length, devices and intervals of a run."""

    max_steps: int = option(100_000, "optimiser steps")
    strategy: Strategy = option(Strategy.auto, f"how devices share the training state: {', '.join(Strategy)}")
    accelerator: str = option("auto", "auto, cpu or cuda (or gpu, its earlier name)")
    devices: int = option(0, "processes per machine; 0: one per GPU, or as many as torchrun or Slurm started")
    num_nodes: int = option(0, "machines; 0: as many as torchrun or Slurm started, else one")
    precision: Precision = option(Precision.auto, "auto, float32 or bfloat16 (autocast)")
    deterministic: bool = option(False, "bitwise reproducible on a GPU too; slower")
    threads: int = option(0, "CPU threads of torch; 0: as many as cores are idle at the start")
    compile: bool | None = option(None, "compile the U-Net, which takes minutes; null: on a GPU, except under ZeRO-3")
    channels_last: bool | None = option(None, "channels-last memory layout of the U-Net; null: where it is compiled")
    checkpointing: bool = option(
        False, "recompute activations in the backward pass: a third more computation, a fraction of the memory"
    )
    checkpoint_every: int = option(500, "steps between checkpoints to resume from")
    keep: int = option(2, "checkpoints to keep, besides the model of the lowest validation loss")
    validate_every: int = option(500, "steps between validations; 0: none")
    sample_every: int = option(1000, "steps between sample images; 0: one at the end")
    log_every: int = option(10, "steps between rows of metrics")

    def __post_init__(self) -> None:
        counts = ("devices", "num_nodes", "threads", "validate_every", "sample_every")
        require("trainer.", self, **dict.fromkeys(counts, (0, math.inf)))
        require_positive("trainer.", self, ("max_steps", "checkpoint_every", "keep", "log_every"))
        require_choice("trainer.accelerator", self.accelerator, ("auto", "cpu", "cuda", "gpu"))
        require_choice("trainer.precision", self.precision, TRAINING_PRECISIONS)
        if self.compile and self.strategy is Strategy.zero3:
            raise UserError("trainer.compile=true: ZeRO-3 gathers weights layer by layer; use zero2, or compile=false")

    @property
    def device(self) -> str:
        """The kind of device: auto, cpu or cuda."""
        return "cuda" if self.accelerator == "gpu" else self.accelerator


@dataclass(frozen=True)
class SampleConfig:
    """The sample image: input, ground truth and sampled view of some validation pairs."""

    rows: int = option(6, "pairs in the image")
    steps: int = option(50, "DDIM steps")
    guidance: float = option(3.0, "scale of classifier-free guidance")
    eta: float = option(1.0, "DDIM's η")

    def __post_init__(self) -> None:
        require_positive("sample.", self, ("rows",))
        require("sample.", self, steps=(1, 1000), eta=(0, 1))


class Artifacts(StrEnum):
    """Models that are logged to W&B, besides metrics and images."""

    none = "none"
    model = "model"  # the final model
    all = "all"  # and the best model, whenever it improves


@dataclass(frozen=True)
class RayConfig:
    """Training with Ray Train."""

    address: str | None = option(None, "train with Ray Train: address of a cluster, auto, or local; null: without Ray")


@dataclass(frozen=True)
class FinetuneConfig:
    """Options of `training.finetune`."""

    output: str = option("outputs/finetune", "folder of the run; the same command resumes it")
    seed: int = option(0, "seed of weights, pairs, timesteps and noise")
    data: DataConfig = option(DataConfig(), "view shards")
    model: Architecture = option(Architecture(), "the model")
    optimizer: OptimizerConfig = option(OptimizerConfig(), "optimiser")
    timesteps: TimestepDensity = option(TimestepDensity(), "timesteps of the training pairs")
    trainer: TrainerConfig = option(TrainerConfig(), "length, devices and intervals")
    sample: SampleConfig = option(SampleConfig(), "sample image")
    mirror: str | None = option(None, "s3:// URL of a copy of the run, from which another machine can resume")
    artifacts: Artifacts = option(Artifacts.model, "W&B artifacts: none, model or all; URLs if mirror is set")
    ray: RayConfig = option(RayConfig(), "Ray Train")
    wandb: WandbConfig = option(WandbConfig(), "Weights & Biases")

    def __post_init__(self) -> None:
        require("", self, seed=(0, math.inf))
        require_local("output", self.output, "mirror=s3://… keeps a remote copy")
        if self.model.train_image_encoder and self.data.kind is DataKind.latents:
            raise UserError(
                "model.train_image_encoder=true: latents hold the embeddings of a frozen encoder; use data.kind=views"
            )


@dataclass(frozen=True)
class EncodeConfig:
    """Options of `training.encode`."""

    path: str = option("???", "folder or s3:// URL of view shards, the output of pipeline.render; one source")
    output: str = option("outputs/latents", "folder or s3:// URL for the latent shards")
    seed: int = option(0, "seed of encoders that are not pretrained; use that of training.finetune")
    background: Background = option(
        Background.composite, "composite (blend with white) or original (as the original code does it, with fringes)"
    )
    device: str = option("auto", "auto (GPUs if Ray has any at the start), cpu, or cuda (for an autoscaling cluster)")
    precision: Precision = option(Precision.auto, "auto (float16 on a GPU, float32 on a CPU), float32 or float16")
    batch_size: int = option(16, "views of an object to encode at a time")
    threads: int = option(1, "CPU cores per worker")
    max_failure_rate: float = option(0.05, "exit with 1 when a larger share of the objects has no latents")
    retry: list[str] = option(
        [], f"encode shards again where objects failed for one of these reasons: {', '.join(FAILURES)}"
    )
    model: Architecture = option(Architecture(), "the model whose encoders to use")
    cluster: Cluster = option(Cluster(), "Ray cluster")

    def __post_init__(self) -> None:
        require("", self, seed=(0, math.inf), max_failure_rate=(0, 1))
        require_positive("", self, ("batch_size", "threads"))
        require_choice("device", self.device, ("auto", "cpu", "cuda"))
        require_choice("precision", self.precision, ENCODE_PRECISIONS)
        if unknown := set(self.retry) - set(FAILURES):
            raise UserError(f"retry={min(unknown)}: unknown reason; use some of {', '.join(FAILURES)}")


@dataclass(frozen=True)
class LoadingConfig:
    """Options of `training.loading`."""

    original: str | None = option(None, "folder of PNG files and cameras, the output of pipeline.export")
    views: str | None = option(None, "folder or URL of view shards")
    latents: str | None = option(None, "folder or URL of latent shards")
    resolution: int = option(256, "side of the images in pixels")
    batch_size: int = option(32, "pairs per batch")
    pairs_per_object: int = option(4, "pairs per object each time its shard is read")
    cache_mb: int = option(0, "memory for decoded views in MiB; 0: decode every view each time")
    seconds: float = option(2.0, "CPU seconds per source and round")

    def __post_init__(self) -> None:
        require_positive("", self, ("resolution", "batch_size", "pairs_per_object"))
        require("", self, cache_mb=(0, math.inf), seconds=(0.01, math.inf))


class Layout(StrEnum):
    """Layout of a converted checkpoint folder."""

    community = "community"  # cc_projection/, for Zero1to3StableDiffusionPipeline and this project
    threestudio = "threestudio"  # clip_camera_projection/, for threestudio's Zero123Pipeline


@dataclass(frozen=True)
class ConvertConfig:
    """Options of `training.convert`."""

    source: str = option(
        "???",
        ".ckpt or .safetensors file of the original's layout, diffusers folder, or org/name[/path] on the hub",
    )
    target: str = option("???", "folder to write, or a file whose name ends in .ckpt, for the original's code")
    layout: Layout = option(Layout.community, "layout of a folder: community (also this project's) or threestudio")
    ema: bool = option(True, "use the moving average of the U-Net if the source has it; false: its last weights")
    pose_vector: PoseVector | None = option(
        None, "zero123 or stable_zero123; null: as in the source, otherwise zero123"
    )
    image_encoder: str | None = option(None, "folder of a CLIP vision model that replaces the encoder of the source")
    dtype: Precision = option(Precision.float32, "precision of the written weights: float32, float16 or bfloat16")

    def __post_init__(self) -> None:
        require_local("target", self.target, "copy it afterwards")
        require_choice("dtype", self.dtype, WEIGHT_PRECISIONS)


@dataclass(frozen=True)
class BenchmarkConfig:
    """Options of `training.benchmark`."""

    output: str = option("outputs/benchmark", "folder of the report")
    seed: int = option(0, "seed of weights and random pairs")
    model: Architecture = option(Architecture(), "the model")
    device: str = option("auto", "auto, cpu, cuda or cuda:1")
    precision: Precision = option(Precision.auto, "auto, float32 or bfloat16 (autocast)")
    batch_sizes: list[int] = option(
        [], "pairs per step; empty: 1 on a CPU; on a GPU from 8, doubling until its memory is full"
    )
    ablation: bool = option(True, "also measure without each optimisation, and with optimisations added one by one")
    compile: bool | None = option(None, "compile the training step of this project; null: on a GPU")
    steps: int = option(10, "steps per block of a variant")
    rounds: int = option(3, "blocks per variant, alternating between variants; the median is reported")
    threads: int = option(0, "CPU threads of torch; 0: torch's default")

    def __post_init__(self) -> None:
        require_positive("", self, ("steps", "rounds"))
        require("", self, seed=(0, math.inf), threads=(0, math.inf))
        require_local("output", self.output, "copy it afterwards")
        require_choice("precision", self.precision, TRAINING_PRECISIONS)
        if any(size < 1 for size in self.batch_sizes):
            raise UserError(f"batch_sizes={list(self.batch_sizes)}: each must be at least 1")


@dataclass(frozen=True)
class PlotConfig:
    """Options of `training.plot`."""

    runs: list[str] = option([], "folders of runs: outputs/run,outputs/other")
    output: str | None = option(None, "image to write, .png, .svg or .pdf; null: curves.png in the first run")
