"""A run's plan: which objects go into which shard, and with what. It is written before the first picture.

The same command reads it again, so that a run continues only with what it began with.
"""

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, replace

from pipeline.config import RenderConfig
from pipeline.output import FolderLayout, json_object
from pipeline.shards import ObjectRecord, ShardManifest, require_same_plan, shard_name
from pipeline.sources.source import Asset, Source
from rendering.limits import Limits
from rendering.settings import RenderSettings

LAYOUT = FolderLayout(
    record="plan.json",
    is_record=lambda contents: any(name.startswith("renderer.") for name in json_object(contents)),
    writes=r"views-\d{6}\.(tar|json)|plan\.json|progress\.json|objects\.csv|licenses\.csv",
)


@dataclass(frozen=True)
class ShardJob:
    """What one Ray task needs to make one shard. `kept` are the records of objects that it takes over as they are."""

    root: str
    name: str
    assets: tuple[Asset, ...]
    source: Source
    recipe: RenderSettings
    limits: Limits
    seed: int
    kept: tuple[ObjectRecord, ...] = ()


def split(assets: list[Asset], per_shard: int | None) -> list[tuple[Asset, ...]]:
    """Assets of each shard. The layout follows from the assets alone, never from the machine."""
    size = per_shard or min(256, max(1, -(-len(assets) // 16)))
    return [tuple(assets[i : i + size]) for i in range(0, len(assets), size)]


def make_jobs(config: RenderConfig) -> list[ShardJob]:
    """All the shards of a run, after its plan is found equal to the one at its output or written there.

    Raises:
        UserError: the source has no objects, or the output was begun with another plan.
    """
    assets = config.objects.find()
    shards = split(assets, config.objects_per_shard)
    listing = "\n".join(f"{asset.uid} {asset.origin}" for shard in shards for asset in (*shard, Asset("", "")))
    plan = {
        "objects": len(assets),
        "shards": len(shards),
        "listing": hashlib.sha256(listing.encode()).hexdigest(),
        "seed": config.seed,
        **{f"renderer.{name}": value for name, value in asdict(config.renderer).items()},
    }
    require_same_plan(config.output, plan)
    common = (config.objects, config.renderer, config.limits, config.seed)
    return [ShardJob(config.output, shard_name("views", i), shard, *common) for i, shard in enumerate(shards)]


def unfinished(jobs: Iterable[ShardJob], markers: Iterable[ShardManifest], retry: Collection[str]) -> list[ShardJob]:
    """What remains to be done: shards without a marker, and of the others the objects that failed for `retry`."""
    done = {marker.name: marker.records for marker in markers}
    todo = []
    for job in jobs:
        if job.name not in done:
            todo.append(job)
        elif any(record.reason in retry for record in done[job.name]):
            todo.append(replace(job, kept=tuple(r for r in done[job.name] if r.reason not in retry)))
    return todo
