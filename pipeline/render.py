"""Render every object's views into WebDataset shards.

    python -m pipeline.render objects=folder objects.path=my_objects output=outputs/views
    python -m pipeline.render objects=objaverse objects.limit=1000 output=outputs/objaverse
    python -m pipeline.render objects=objaverse output=s3://bucket/views +cluster=aws

Each object gets `renderer.views` pictures from random cameras around it (paper, section 4.1). An object that
cannot be rendered is recorded with its reason, and the run goes on. To resume, run the same command again.
Look at the result with `python -m pipeline.inspect path=…`, check it with `python -m pipeline.verify path=…`.
"""

import sys
import time
from collections import Counter

from tqdm import tqdm

from conf.command import run
from pipeline.cluster import connected, run_tasks
from pipeline.config import RenderConfig
from pipeline.objects import SOURCES
from pipeline.plan import ShardJob, make_jobs
from pipeline.shards import Record, find_markers
from pipeline.views import render_shard
from rendering.renderer import require_blender


def main(config: RenderConfig) -> int:
    jobs = make_jobs(config.output, config.objects, config.renderer, config.seed, config.objects_per_shard)
    done = {marker.name: marker for marker in find_markers(config.output, "views")}
    records = [record for marker in done.values() for record in marker.records]
    if todo := [job for job in jobs if job.name not in done]:
        if config.cluster.address is None:
            require_blender()
        print(f"{sum(len(job.assets) for job in todo)} objects to render in {len(todo)} shards; starting Ray")
        with connected(config.cluster, config.renderer.threads):
            records = _render(config, todo, records)
    return _conclude(config.output, records)


def _render(config: RenderConfig, jobs: list[ShardJob], records: list[Record]) -> list[Record]:
    """The records of all objects, those of earlier runs first."""
    start, before = time.monotonic(), len(records)
    failed = sum(record.status == "failed" for record in records)
    total = before + sum(len(job.assets) for job in jobs)
    with tqdm(total=total, initial=before, desc="rendering", unit=" objects", smoothing=0.1) as bar:
        for record in run_tasks(render_shard, jobs, config.cluster, config.renderer.threads):
            records.append(record)
            failed += record.status == "failed"
            bar.set_postfix(failed=failed, refresh=False)
            bar.update()
            if record.status == "failed":
                bar.write(f"  {record.uid}: {record.reason}: {record.detail}", file=sys.stderr)
    count, seconds = len(records) - before, time.monotonic() - start
    views = sum(record.status == "ok" for record in records[before:]) * config.renderer.views
    print(f"{count} objects in {seconds:.0f} s: {count / seconds:.2f} objects/s, {views / seconds:.1f} views/s")
    return records


def _conclude(output: str, records: list[Record]) -> int:
    failed = Counter(record.reason for record in records if record.status == "failed")
    if failed:
        reasons = ", ".join(f"{count} {reason}" for reason, count in failed.most_common())
        print(f"{failed.total()} of {len(records)} objects have no views: {reasons}")
        print("the shards' .json files say more; delete one to render its objects again")
    if failed.total() == len(records):
        print(f"error: not one object could be rendered; the shards in {output} are empty", file=sys.stderr)
        return 1
    print(f"views of {len(records) - failed.total()} objects in {output}")
    return 0


if __name__ == "__main__":
    run(main, RenderConfig, "pipeline", "render", SOURCES, help=__doc__)
