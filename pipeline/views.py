"""One shard of views, object by object: fetch, render, pack, commit."""

import functools
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pipeline.objects.source import Asset
from pipeline.plan import ShardJob
from pipeline.shards import Record, Sample, ShardWriter
from rendering.failure import RenderFailure
from rendering.renderer import Renderer


def render_shard(job: ShardJob) -> Iterator[Record]:
    """Make and commit one shard; yields what became of each object as soon as it is known."""
    records = []
    with ShardWriter(job.root, job.name) as shard:
        for asset in job.assets:
            start = time.monotonic()
            try:
                shard.add(asset.uid, render_asset(asset, job, _renderer()))
                record = Record(asset.uid, "ok")
            except RenderFailure as failure:
                record = Record(asset.uid, "failed", failure.reason, failure.detail)
            records.append(replace(record, seconds=round(time.monotonic() - start, 3)))
            if asset is not job.assets[-1]:
                yield records[-1]
        shard.commit(records)
    # The last object counts as done only once the shard is.
    yield records[-1]


def render_asset(asset: Asset, job: ShardJob, renderer: Renderer) -> Sample:
    """The sample of one object.

    Raises:
        RenderFailure: it has no views.
    """
    scratch = Path(tempfile.mkdtemp(prefix="views-"))
    try:
        path = job.source.fetch(asset, scratch, renderer)
        views = scratch / "views"
        views.mkdir()
        meta = renderer.render(path, job.recipe, object_seed(job.seed, asset.uid), views)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        meta = {"uid": asset.uid, "source": asset.origin, "sha256": sha256, "license": asset.license, **meta}
        return {
            **{file.name: file.read_bytes() for file in sorted(views.iterdir())},
            "meta.json": json.dumps(meta, indent=1).encode(),
        }
    finally:
        shutil.rmtree(scratch)


def object_seed(seed: int, uid: str) -> int:
    """A seed of 48 bits from the run's seed and the object's name alone, whatever the order of work."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{uid}".encode()).digest()[:6], "big")


@functools.cache
def _renderer() -> Renderer:
    """One Blender for all the shards that this process makes."""
    return Renderer()
