"""A run's plan: which objects go into which shard, and with what. It is written before the first picture.

The same command reads it again, so that a run continues only with what it began with.
"""

import hashlib
import json
from dataclasses import dataclass

import fsspec

from conf.options import UserError
from pipeline.objects.source import Asset, Source
from pipeline.shards import find_markers, shard_name, write_atomically
from rendering.recipe import Recipe


@dataclass(frozen=True)
class ShardJob:
    """What one Ray task needs to make one shard."""

    root: str
    name: str
    assets: tuple[Asset, ...]
    source: Source
    recipe: Recipe
    seed: int


def split(assets: list[Asset], per_shard: int | None) -> list[tuple[Asset, ...]]:
    """Assets of each shard. The layout follows from the assets alone, never from the machine."""
    size = per_shard or min(256, max(1, -(-len(assets) // 16)))
    return [tuple(assets[i : i + size]) for i in range(0, len(assets), size)]


def make_jobs(root: str, source: Source, recipe: Recipe, seed: int, per_shard: int | None) -> list[ShardJob]:
    """The shards of a run, after its plan is found equal to the one at `root` or written there.

    Raises:
        UserError: the source has no objects, or `root` was begun with another plan.
    """
    assets = source.find()
    shards = split(assets, per_shard)
    listing = "\n".join(f"{asset.uid} {asset.origin}" for shard in shards for asset in (*shard, Asset("", "")))
    plan = {
        "objects": len(assets),
        "shards": len(shards),
        "listing": hashlib.sha256(listing.encode()).hexdigest(),
        "seed": seed,
        **{f"renderer.{name}": value for name, value in recipe.appearance.items()},
    }
    _agree(root, plan)
    return [ShardJob(root, shard_name("views", i), shard, source, recipe, seed) for i, shard in enumerate(shards)]


def _agree(root: str, plan: dict[str, object]) -> None:
    """Refuse to continue shards that were made with another plan."""
    fs, path = fsspec.core.url_to_fs(f"{root}/plan.json")
    if not find_markers(root, "views"):
        write_atomically(f"{root}/plan.json", json.dumps(plan, indent=1).encode())
        return
    if not fs.exists(path):
        raise UserError(f"{root} holds shards but no plan.json that says how they were made; choose another output")
    begun = json.loads(fs.cat_file(path))
    for name, value in plan.items():
        if begun.get(name) != value:
            what = "other objects" if name == "listing" else f"{name}={begun.get(name)}, now {value}"
            raise UserError(f"{root} was begun with {what}; choose another output, or delete that folder")
