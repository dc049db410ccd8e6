"""Render views of each object into WebDataset shards.

    python -m pipeline.render objects=folder objects.path=my_objects output=outputs/views
    python -m pipeline.render objects=objaverse objects.limit=1000 output=outputs/objaverse
    python -m pipeline.render objects=objaverse output=s3://bucket/views +cluster=aws

Each object gets `renderer.views` images from random cameras around it (paper, section 4.1). An object that
cannot be rendered is recorded with its reason, and the run continues. To resume, run the same command again.
Watch it from another terminal with `python -m pipeline.status path=… watch=5`, or on W&B (wandb.mode=online).
Look at the result with `python -m pipeline.inspect path=…`, check it with `python -m pipeline.verify path=…`.
"""

import sys
import time
from collections.abc import Iterator

from tqdm import tqdm

from conf.command import run
from pipeline.cluster import connected, gpu_share, run_tasks
from pipeline.config import RenderConfig
from pipeline.monitor import monitored
from pipeline.output import claimed, is_own, require_apart, require_shared
from pipeline.plan import LAYOUT, ShardJob, make_jobs, unfinished
from pipeline.shard_job import render_shard
from pipeline.shards import ObjectRecord, ShardManifest, find_manifests
from pipeline.sources import SOURCES, FolderObjects
from pipeline.summary import summarise
from pipeline.tables import write_tables
from rendering.blender_process import require_blender
from rendering.sandbox import landlock_version


def main(config: RenderConfig) -> int:
    """Render the objects of `config.objects` into shards at `config.output`; return the exit code.

    Raises:
        UserError: The source has no objects, or the output belongs to another run.
    """
    if isinstance(config.objects, FolderObjects):
        require_apart(config.output, config.objects.path, "objects.path", nested=not is_own(config.output, LAYOUT))
    with claimed(config.output, LAYOUT):
        return render_all(config)


def render_all(config: RenderConfig) -> int:
    """Render the objects that the output does not contain yet, and write its tables.

    Returns:
        Exit code: 1 where more than `max_failure_rate` of the objects failed, else 0.
    """
    jobs = make_jobs(config)
    done = find_manifests(config.output, "views")
    records = {record.uid: record for manifest in done for record in manifest.records}
    if todo := unfinished(jobs, done, config.retry):
        if config.cluster.address is None:
            require_blender()
        if landlock_version() < 1:  # Ray does not pass on the warning of Blender's process
            print("this kernel has no Landlock, which limits Blender to the objects' files:", file=sys.stderr, end=" ")
            print("render only assets that you trust (SECURITY.md)", file=sys.stderr)
        count = sum(len(job.assets) - len(job.kept) for job in todo)
        print(f"{count} objects to render in {len(todo)} shards; starting Ray")
        with connected(config.cluster, config.limits.threads):
            for record in _render(config, todo, done):
                records[record.uid] = record
        require_shared(config.output, [f"{job.name}.json" for job in todo])
    write_tables(config.output, jobs)
    hint = "objects.csv beside the shards says more; to render some of them again: retry={reasons}"
    return summarise(config.output, records.values(), config.max_failure_rate, hint)


def _render(config: RenderConfig, jobs: list[ShardJob], before: list[ShardManifest]) -> Iterator[ObjectRecord]:
    """Render the shards of `jobs` with a progress bar; yield the record of each object when it is complete."""
    start, ok, failed = time.monotonic(), 0, 0
    count = sum(len(job.assets) - len(job.kept) for job in jobs)
    share = gpu_share(config.renderer, config.cluster)
    bar = tqdm(total=count, desc="rendering", unit=" objects", smoothing=0.1)
    with monitored(config, jobs, before) as add_record, bar:
        for record in run_tasks(render_shard, jobs, config.cluster, config.limits.threads, share):
            add_record(record)
            ok += record.status == "ok"
            failed += record.status == "failed"
            bar.set_postfix(failed=failed, refresh=False)
            bar.update()
            if record.status == "failed":
                bar.write(f"  {record.uid}: {record.reason}: {record.detail}", file=sys.stderr)
            yield record
    seconds, done = time.monotonic() - start, ok + failed
    views = ok * config.renderer.views
    print(f"{done} objects in {seconds:.0f} s: {done / seconds:.2f} objects/s, {views / seconds:.1f} views/s")


def command() -> None:
    """Run the command line."""
    run(main, RenderConfig, "pipeline", "render", SOURCES, help=__doc__)


if __name__ == "__main__":
    command()
