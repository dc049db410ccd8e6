"""What `training.finetune` can be told."""

from dataclasses import dataclass

from conf.options import UserError, option
from conf.tracking import WandbConfig
from rendering.quality import VERDICTS
from training.model.architecture import Architecture
from training.model.picture import Background

DUPLICATE = "duplicate"  # of the mesh of an object in front of it
UNWANTED = (*VERDICTS, DUPLICATE)


def _require_positive(group: str, config: object, names: tuple[str, ...]) -> None:
    for name in names:
        if getattr(config, name) < 1:
            raise UserError(f"{group}.{name}={getattr(config, name)} must be at least 1")


@dataclass(frozen=True)
class DataConfig:
    path: str = option("???", "folder or s3:// URL of view shards, the output of pipeline.render")
    batch_size: int = option(32, "view pairs per device and step")
    pairs_per_object: int = option(4, "view pairs that an object gives in an epoch")
    validation_fraction: float = option(0.01, "share of objects, chosen by the hash of their uid, never trained on")
    validation_pairs: int = option(4, "view pairs per validation object")
    without: list[str] = option([], f"leave out objects that are any of {', '.join(UNWANTED)}")
    background: Background = option(Background.composite, "composite on white, or `original` for its fringes")
    workers: int = option(4, "processes that read and decode; 0: the training process itself")
    cache_mb: int = option(256, "memory per process for decoded views, which later epochs then need not decode")

    def __post_init__(self) -> None:
        _require_positive("data", self, ("batch_size", "pairs_per_object", "validation_pairs"))
        if unknown := set(self.without) - set(UNWANTED):
            raise UserError(f"data.without={min(unknown)}: there is no such word; choose from {', '.join(UNWANTED)}")


@dataclass(frozen=True)
class OptimizerConfig:
    lr: float = option(1e-4, "learning rate of the U-Net; that of cc_projection is 10 times as high")
    weight_decay: float = option(0.01, "AdamW's weight decay")
    warmup_steps: int = option(100, "steps over which the learning rate rises to its value")
    decay: float = option(0.0, "share of the steps, the last ones, over which it falls to zero along a cosine")
    ema_decay: float = option(0.9999, "decay of the moving average of the U-Net's weights")
    clip_norm: float = option(0.0, "bound on the norm of the gradient; 0: none, as in the original")


@dataclass(frozen=True)
class TrainerConfig:
    max_steps: int = option(100_000, "optimiser steps")
    accumulate: int = option(1, "batches per optimiser step")
    accelerator: str = option("auto", "auto, cpu or gpu")
    devices: int = option(1, "devices per machine")
    num_nodes: int = option(1, "machines")
    strategy: str = option("auto", "auto, ddp, deepspeed_stage_2 or another of Lightning's")
    precision: str = option("auto", "auto, 32-true, bf16-mixed or another of Lightning's")
    threads: int = option(0, "torch's threads on a CPU; 0: as many as torch chooses")
    channels_last: bool = option(False, "memory layout of the U-Net")
    checkpoint_every: int = option(500, "steps between checkpoints to resume from")
    validate_every: int = option(500, "steps between validations; 0: none")
    sample_every: int = option(1000, "steps between picture grids; 0: only at the end")
    log_every: int = option(10, "steps between lines of metrics")

    def __post_init__(self) -> None:
        counts = ("max_steps", "accumulate", "devices", "num_nodes", "checkpoint_every", "log_every")
        _require_positive("trainer", self, counts)


@dataclass(frozen=True)
class SampleConfig:
    """The picture grid: input, truth and what the model makes of it, for pairs of validation objects."""

    rows: int = option(6, "pairs in the grid")
    steps: int = option(50, "DDIM steps")
    guidance: float = option(3.0, "classifier-free guidance")
    eta: float = option(1.0, "DDIM's η")

    def __post_init__(self) -> None:
        _require_positive("sample", self, ("rows", "steps"))


@dataclass(frozen=True)
class FinetuneConfig:
    output: str = option("outputs/finetune", "folder of the run; the same command continues it")
    seed: int = option(0, "seed of weights, pairs, timesteps and noises")
    data: DataConfig = option(DataConfig(), "view shards")
    model: Architecture = option(Architecture(), "what is trained")
    optimizer: OptimizerConfig = option(OptimizerConfig(), "how it learns")
    trainer: TrainerConfig = option(TrainerConfig(), "how long, where and how often to look")
    sample: SampleConfig = option(SampleConfig(), "the picture grid")
    wandb: WandbConfig = option(WandbConfig(), "Weights & Biases")
