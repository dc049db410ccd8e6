"""Plan of a run: assignment of objects to shards, and the settings that determine the views.

The plan is written before the first view is rendered. A resumed run reads it and continues only with equal objects and
settings.
"""

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, replace

from pipeline.config import RenderConfig
from pipeline.output import FolderLayout, json_object
from pipeline.shards import ObjectRecord, ShardManifest, require_same_plan, shard_name
from pipeline.sources.source import Asset, Source
from pipeline.storage import absolute
from rendering.limits import Limits
from rendering.settings import RenderSettings

LAYOUT = FolderLayout(
    record="plan.json",
    is_record=lambda contents: any(name.startswith("renderer.") for name in json_object(contents)),
    writes=r"views-\d{6}\.(tar|json)|plan\.json|progress\.json|objects\.csv|licenses\.csv",
)


@dataclass(frozen=True)
class ShardJob:
    """Input of the Ray task that makes one shard.

    Attributes:
        root: Output, an absolute path or a URL.
        name: Name of the shard, such as "views-000000".
        assets: Objects of the shard, in order.
        source: Source that fetches the objects.
        settings: Settings of the renderer.
        limits: Limits of the Blender process.
        seed: Seed of the run.
        kept: Records of objects whose committed samples are copied instead of rendered.
    """

    root: str
    name: str
    assets: tuple[Asset, ...]
    source: Source
    settings: RenderSettings
    limits: Limits
    seed: int
    kept: tuple[ObjectRecord, ...] = ()


def split(assets: list[Asset], per_shard: int | None) -> list[tuple[Asset, ...]]:
    """Split the assets into shards; the result does not depend on the machine.

    Args:
        assets: All objects, in order.
        per_shard: Objects per shard. By default a sixteenth of the objects, between 1 and 256.

    Returns:
        The assets of each shard.
    """
    size = per_shard or min(256, max(1, -(-len(assets) // 16)))
    return [tuple(assets[i : i + size]) for i in range(0, len(assets), size)]


def make_jobs(config: RenderConfig) -> list[ShardJob]:
    """Return the jobs of all shards of a run.

    The plan of the run is written to the output, or compared with the plan that is there.

    Args:
        config: Settings of the run.

    Returns:
        One job per shard, finished shards included.

    Raises:
        UserError: The source has no objects, or the output was begun with another plan.
    """
    assets = config.objects.find()
    shards = split(assets, config.objects_per_shard)
    # A line of one space ends each shard.
    listing = "\n".join(line for shard in shards for line in (*(f"{asset.uid} {asset.origin}" for asset in shard), " "))
    plan = {
        "objects": len(assets),
        "shards": len(shards),
        "listing": hashlib.sha256(listing.encode()).hexdigest(),
        "seed": config.seed,
        **{f"renderer.{name}": value for name, value in asdict(config.renderer).items()},
    }
    require_same_plan(config.output, plan)
    common = (config.objects, config.renderer, config.limits, config.seed)
    root = absolute(config.output)
    return [ShardJob(root, shard_name("views", i), shard, *common) for i, shard in enumerate(shards)]


def unfinished(jobs: Iterable[ShardJob], manifests: Iterable[ShardManifest], retry: Collection[str]) -> list[ShardJob]:
    """Return the jobs that remain: shards that are not committed, and committed shards with objects to retry.

    Args:
        jobs: Jobs of all shards.
        manifests: Manifests of the committed shards.
        retry: Failure reasons; objects that failed for one of them are rendered again.

    Returns:
        The remaining jobs, in order. A job that retries objects keeps the records of the others in `kept`.
    """
    done = {manifest.name: manifest.records for manifest in manifests}
    todo = []
    for job in jobs:
        if job.name not in done:
            todo.append(job)
        elif any(record.reason in retry for record in done[job.name]):
            todo.append(replace(job, kept=tuple(r for r in done[job.name] if r.reason not in retry)))
    return todo
