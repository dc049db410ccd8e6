"""One shard of views, object by object: fetch, render, pack, commit."""

import functools
import hashlib
import json
import platform
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from tarfile import TarError

from conf.options import UserError
from pipeline.plan import ShardJob
from pipeline.shards import ObjectRecord, Sample, ShardWriter, read_samples
from pipeline.sources.source import Asset
from rendering.blender_process import BlenderProcess, Rendered
from rendering.failure import RenderFailure
from rendering.limits import Limits

DOWNLOADS = 8  # at a time and ahead of the renderer, per worker


def render_shard(job: ShardJob) -> Iterator[ObjectRecord]:
    """Make and commit one shard; yields what became of each object as soon as it is known.

    Objects in `job.kept` are not rendered; what the committed shard holds of them is copied.
    """
    kept = {record.uid: record for record in job.kept}
    todo = [asset for asset in job.assets if asset.uid not in kept]
    copies = _copies(job) if kept else iter(())
    with ShardWriter(job.root, job.name) as shard, tempfile.TemporaryDirectory(prefix="views-") as scratch:
        fetched = fetch_ahead(job, todo, Path(scratch))
        records: list[ObjectRecord] = []
        last: ObjectRecord | None = None
        for asset in job.assets:
            if asset.uid in kept:
                records.append(kept[asset.uid])
                if records[-1].status == "ok":
                    shard.add(*next(copies))
                continue
            if last:
                yield last
            sample, last = fetch_and_render(asset, next(fetched), job)
            records.append(last)
            if sample:
                shard.add(asset.uid, sample)
            shutil.rmtree(Path(scratch) / asset.uid)
        shard.commit(records)
    # The last object counts as done only once the shard is.
    if last:
        yield last


def fetch_ahead(job: ShardJob, assets: Iterable[Asset], scratch: Path) -> Iterator[Callable[[], Path]]:
    """For each asset in turn a call that returns its local file, or raises RenderFailure.

    Where a source downloads, the next ones are already on their way.
    """

    def fetch(asset: Asset) -> Path:
        folder = scratch / asset.uid
        folder.mkdir()
        return job.source.fetch(asset, folder, _renderer(job.limits))

    if not job.source.downloads:
        yield from (functools.partial(fetch, asset) for asset in assets)
        return
    with ThreadPoolExecutor(DOWNLOADS) as pool:
        running: deque[Future[Path]] = deque()
        try:
            for asset in assets:
                running.append(pool.submit(fetch, asset))
                if len(running) > DOWNLOADS:
                    yield running.popleft().result
            yield from (future.result for future in running)
        finally:
            pool.shutdown(cancel_futures=True)


def fetch_and_render(asset: Asset, fetch: Callable[[], Path], job: ShardJob) -> tuple[Sample, ObjectRecord]:
    """The sample of one object, empty if it has no views, and its record."""
    start = time.monotonic()
    phases: dict[str, float] = {}
    node = platform.node()
    try:
        path = fetch()
        phases["fetch"] = time.monotonic() - start
        sample, rendered = render_asset(asset, path, job, _renderer(job.limits))
    except RenderFailure as failure:
        seconds = round(time.monotonic() - start, 3)
        return {}, ObjectRecord(asset.uid, "failed", failure.reason, failure.detail, seconds, phases, node=node)
    return sample, ObjectRecord(
        asset.uid,
        "ok",
        seconds=round(time.monotonic() - start, 3),
        phases={name: round(seconds, 3) for name, seconds in (phases | rendered.phases).items()},
        bytes=sum(map(len, sample.values())),
        node=node,
        verdicts=tuple(rendered.meta["verdicts"]),
        mesh=rendered.meta["mesh"],
    )


def render_asset(asset: Asset, path: Path, job: ShardJob, renderer: BlenderProcess) -> tuple[Sample, Rendered]:
    """The sample of one object.

    Raises:
        RenderFailure: it has no views.
    """
    with tempfile.TemporaryDirectory(prefix="views-") as folder:
        seed = object_seed(job.seed, asset.uid)
        rendered = renderer.render(path, job.recipe, seed, Path(folder), job.source.folder())
        views = {file.name: file.read_bytes() for file in sorted(Path(folder).iterdir())}
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    origin = {"uid": asset.uid, "source": asset.origin, "sha256": sha256}
    rights = {"license": asset.license, "author": asset.author}
    meta = json.dumps({**origin, **rights, **rendered.meta}, indent=1)
    return {**views, "meta.json": meta.encode()}, rendered


def object_seed(seed: int, uid: str) -> int:
    """A seed of 48 bits from the run's seed and the object's name alone, whatever the order of work."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{uid}".encode()).digest()[:6], "big")


def _copies(job: ShardJob) -> Iterator[tuple[str, Sample]]:
    """The samples that the committed shard holds, in its order."""
    try:
        yield from read_samples(job.root, job.name)
    except (OSError, ValueError, TarError) as error:
        raise UserError(f"shard {job.name} is damaged ({error!r}); delete its .tar and .json and run again") from error


@functools.cache
def _renderer(limits: Limits) -> BlenderProcess:
    """One Blender for all the shards that this process makes."""
    return BlenderProcess(limits)
