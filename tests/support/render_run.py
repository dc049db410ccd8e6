"""Rendering run of two shards, committed without Blender."""

import json
from pathlib import Path

from conf.tracking import WandbMode
from pipeline.config import RenderConfig, RenderWandb
from pipeline.plan import ShardJob
from pipeline.shards import ObjectRecord, write_shard
from pipeline.sources.source import Asset
from rendering.limits import Limits
from rendering.settings import RenderSettings
from tests.support.dots import sample_of_dots


def planned(root: Path, mode: WandbMode = WandbMode.offline) -> tuple[RenderConfig, list[ShardJob]]:
    """Return configuration and jobs of a run of two shards with two objects each."""
    config = RenderConfig(
        None, str(root), renderer=RenderSettings(views=4), wandb=RenderWandb(mode=mode, pictures_every=1)
    )
    assets = [(Asset("a1", ""), Asset("a2", "")), (Asset("b1", ""), Asset("b2", ""))]
    root.mkdir(exist_ok=True)
    (root / "plan.json").write_text(json.dumps({"objects": 4, "renderer.views": 4, "seed": 7}))
    jobs = [ShardJob(str(root), f"views-{i:06d}", a, None, config.renderer, Limits(), 0) for i, a in enumerate(assets)]
    return config, jobs


def commit(job: ShardJob, failed: str = "") -> list[ObjectRecord]:
    """Commit a shard like a worker; objects in `failed` have no views."""
    ok = [asset.uid for asset in job.assets if asset.uid != failed]
    phases = {"fetch": 0.5, "load": 0.25, "render": 1.0, "encode": 0.25}
    records = [
        ObjectRecord(a.uid, "ok", "", "", 2.0, phases, 1000, "one.cloud")
        if a.uid in ok
        else ObjectRecord(a.uid, "failed", "timeout", "it took longer", 3.0, node="two.cloud")
        for a in job.assets
    ]
    write_shard(job.root, job.name, [(uid, sample_of_dots(i)) for i, uid in enumerate(ok)], records)
    return records
