"""The typed configuration of the stage's commands; the YAML lies in conf/pipeline."""

from dataclasses import dataclass
from typing import Any

from conf.options import UserError, option
from conf.tracking import WandbConfig
from rendering.failure import REASONS
from rendering.limits import Limits
from rendering.settings import RenderSettings


@dataclass(frozen=True)
class Cluster:
    """Where Ray runs. Without `+cluster=…`, on this machine."""

    address: str | None = option(None, "a running Ray cluster (auto: the one this machine belongs to)")
    workers: int | None = option(
        None, "shards made at a time; by default as many as there are cores for (threads of each)"
    )
    workers_per_gpu: int = option(2, "shards that share one GPU, where they are made on one")

    def __post_init__(self) -> None:
        for name in ("workers", "workers_per_gpu"):
            if (count := getattr(self, name)) is not None and count < 1:
                raise UserError(f"cluster.{name}={count}: at least one")


@dataclass(frozen=True)
class RenderWandb(WandbConfig):
    log_every: float = option(15.0, "seconds between two points of the curves")
    pictures_every: int = option(20, "shards between two contact sheets of sample views")

    def __post_init__(self) -> None:
        for name in ("log_every", "pictures_every"):
            if not getattr(self, name) > 0:
                raise UserError(f"wandb.{name}={getattr(self, name)} must be positive")


@dataclass(frozen=True)
class RenderConfig:
    objects: Any = option("???", "the source of objects: objects=objaverse|folder|procedural")
    output: str = option("outputs/views", "folder or s3:// URL for the shards")
    seed: int = option(0, "cameras, lights and noise follow from it and the object's uid")
    objects_per_shard: int | None = option(None, "by default a sixteenth of the objects, 256 at most")
    max_failure_rate: float = option(0.2, "exit with 1 when a larger part of the objects has no views")
    retry: list[str] = option([], "reasons of failures to render again, as retry=timeout,crashed")
    renderer: RenderSettings = RenderSettings()
    limits: Limits = Limits()
    cluster: Cluster = Cluster()
    wandb: RenderWandb = RenderWandb()

    def __post_init__(self) -> None:
        if self.objects_per_shard is not None and self.objects_per_shard < 1:
            raise UserError(f"objects_per_shard={self.objects_per_shard}: a shard holds at least one object")
        if not 0 <= self.max_failure_rate <= 1:
            raise UserError(f"max_failure_rate={self.max_failure_rate}: a rate lies between 0 and 1")
        if unknown := set(self.retry) - set(REASONS):
            raise UserError(f"retry={min(unknown)}: there is no such reason; choose from {', '.join(REASONS)}")


@dataclass(frozen=True)
class VerifyConfig:
    path: str = option("???", "folder or URL of view shards or latent shards")


@dataclass(frozen=True)
class InspectConfig:
    path: str = option("???", "folder or URL of view shards")
    output: str | None = option(None, "the page to write; by default <path>/index.html")
    limit: int = option(200, "show so many objects at most")


@dataclass(frozen=True)
class PackConfig:
    path: str = option("???", "a local folder of <uid>/000.png, 000.npy …, or a tar(.gz) of such: a file or a URL")
    output: str = option("outputs/views", "folder or s3:// URL for the shards")
    resolution: int | None = option(None, "side of the pictures to come out, pixels; by default as they are")
    valid: str | None = option(None, "the valid_paths.json whose objects are taken; by default that of the folder")
    limit: int | None = option(None, "take only the first so many objects")
    objects_per_shard: int = option(256, "objects in a shard")
    workers: int | None = option(None, "processes that convert pictures; by default one per core")
    max_failure_rate: float = option(0.2, "exit with 1 when a larger part of the objects has no views")

    def __post_init__(self) -> None:
        for name in ("resolution", "limit", "objects_per_shard", "workers"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UserError(f"{name}={value} must be at least 1")
        if not 0 <= self.max_failure_rate <= 1:
            raise UserError(f"max_failure_rate={self.max_failure_rate}: a rate lies between 0 and 1")


@dataclass(frozen=True)
class ExportConfig:
    path: str = option("???", "folder or URL of view shards")
    output: str = option("???", "the folder to write, in the layout of the original's renders")
    workers: int | None = option(None, "processes that convert pictures; by default one per core")

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise UserError(f"workers={self.workers} must be at least 1")


@dataclass(frozen=True)
class StatusConfig:
    path: str = option("???", "the output of pipeline.render, a folder or URL")
    watch: float | None = option(None, "show it anew every so many seconds until the run ends")

    def __post_init__(self) -> None:
        if self.watch is not None and not self.watch > 0:
            raise UserError(f"watch={self.watch} must be a positive number of seconds")
