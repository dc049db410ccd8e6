"""Options of the pipeline commands; their YAML is in conf/pipeline."""

from dataclasses import dataclass
from typing import Any

from conf.options import UserError, option
from conf.tracking import WandbConfig
from rendering.failure import REASONS
from rendering.limits import Limits
from rendering.settings import RenderSettings


@dataclass(frozen=True)
class Cluster:
    """Ray cluster to use; without `+cluster=…`, this machine."""

    address: str | None = option(None, "running Ray cluster; auto: the cluster of this machine; null: start Ray here")
    workers: int | None = option(
        None, "shards to process at a time; null: as many as the cores allow, given the threads per shard"
    )
    workers_per_gpu: int = option(2, "shards that share one GPU, where a GPU is used")

    def __post_init__(self) -> None:
        for name in ("workers", "workers_per_gpu"):
            if (count := getattr(self, name)) is not None and count < 1:
                raise UserError(f"cluster.{name}={count}: must be at least 1")


@dataclass(frozen=True)
class RenderWandb(WandbConfig):
    """W&B options of `pipeline.render`."""

    log_every: float = option(15.0, "seconds between points of the metric curves")
    pictures_every: int = option(20, "shards between contact sheets of sample views")

    def __post_init__(self) -> None:
        for name in ("log_every", "pictures_every"):
            if not getattr(self, name) > 0:
                raise UserError(f"wandb.{name}={getattr(self, name)}: must be positive")


@dataclass(frozen=True)
class RenderConfig:
    """Options of `pipeline.render`."""

    objects: Any = option("???", "source of objects: objects=objaverse|folder|procedural")
    output: str = option("outputs/views", "folder or s3:// URL for the shards")
    seed: int = option(0, "seed; with the uid of an object it determines cameras and lights")
    objects_per_shard: int | None = option(None, "objects per shard; null: a sixteenth of the objects, at most 256")
    max_failure_rate: float = option(0.2, "exit with 1 when a larger share of the objects has no views")
    retry: list[str] = option([], "render again objects that failed for these reasons, e.g. retry=timeout,crashed")
    renderer: RenderSettings = RenderSettings()
    limits: Limits = Limits()
    cluster: Cluster = Cluster()
    wandb: RenderWandb = RenderWandb()

    def __post_init__(self) -> None:
        if self.objects_per_shard is not None and self.objects_per_shard < 1:
            raise UserError(f"objects_per_shard={self.objects_per_shard}: must be at least 1")
        if not 0 <= self.max_failure_rate <= 1:
            raise UserError(f"max_failure_rate={self.max_failure_rate}: must be between 0 and 1")
        if unknown := set(self.retry) - set(REASONS):
            raise UserError(f"retry={min(unknown)}: unknown reason; choose from {', '.join(REASONS)}")


@dataclass(frozen=True)
class VerifyConfig:
    """Options of `pipeline.verify`."""

    path: str = option("???", "folder or URL of view shards or latent shards")


@dataclass(frozen=True)
class InspectConfig:
    """Options of `pipeline.inspect`."""

    path: str = option("???", "folder or URL of view shards")
    output: str | None = option(None, "HTML page to write; null: <path>/index.html")
    limit: int = option(200, "maximum number of objects to show")

    def __post_init__(self) -> None:
        if self.limit < 0:
            raise UserError(f"limit={self.limit}: must be at least 0")


@dataclass(frozen=True)
class PackConfig:
    """Options of `pipeline.pack`."""

    path: str = option("???", "local folder of <uid>/000.png, 000.npy …, or path or URL of a tar(.gz) of such folders")
    output: str = option("outputs/views", "folder or s3:// URL for the shards")
    resolution: int | None = option(None, "side of the output images in pixels; null: unchanged")
    valid: str | None = option(None, "valid_paths.json that lists the objects to pack; null: the file in the folder")
    limit: int | None = option(None, "maximum number of objects to pack, in order; null: all")
    objects_per_shard: int = option(256, "objects per shard")
    workers: int | None = option(None, "processes that convert images; null: one per core")
    max_failure_rate: float = option(0.2, "exit with 1 when a larger share of the objects has no views")

    def __post_init__(self) -> None:
        for name in ("resolution", "limit", "objects_per_shard", "workers"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UserError(f"{name}={value}: must be at least 1")
        if not 0 <= self.max_failure_rate <= 1:
            raise UserError(f"max_failure_rate={self.max_failure_rate}: must be between 0 and 1")


@dataclass(frozen=True)
class ExportConfig:
    """Options of `pipeline.export`."""

    path: str = option("???", "folder or URL of view shards")
    output: str = option("???", "folder to write, in the layout of the original's renders")
    workers: int | None = option(None, "processes that convert images; null: one per core")

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise UserError(f"workers={self.workers}: must be at least 1")
        if "://" in self.output:
            raise UserError(f"output={self.output}: must be a folder of this machine; export to one, then copy it")


@dataclass(frozen=True)
class StatusConfig:
    """Options of `pipeline.status`."""

    path: str = option("???", "folder or URL of the output of pipeline.render")
    watch: float | None = option(None, "seconds between updates, until the run ends; null: show once")

    def __post_init__(self) -> None:
        if self.watch is not None and not self.watch > 0:
            raise UserError(f"watch={self.watch}: must be a positive number of seconds")
