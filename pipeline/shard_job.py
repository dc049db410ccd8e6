"""Task that makes one shard of views: fetch and render each object, write its sample, commit the shard."""

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

from conf.options import first_line
from conf.scratch import scratch_folder
from pipeline.plan import ShardJob
from pipeline.samples import Sample, read_samples
from pipeline.shards import ObjectRecord, ShardWriter
from pipeline.sources.source import Asset
from rendering.blender_process import BlenderProcess, Rendered
from rendering.failure import RenderFailure
from rendering.limits import Limits

DOWNLOADS = 8  # per worker: concurrent downloads, and objects fetched ahead of the renderer


def render_shard(job: ShardJob) -> Iterator[ObjectRecord]:
    """Make and commit one shard; yield the record of each rendered object when it is complete.

    Objects in `job.kept` are not rendered; their samples are copied from the committed shard.

    Args:
        job: Objects and settings of the shard.

    Yields:
        Record of each object that is not in `job.kept`; the last one after the shard is committed.

    Raises:
        DamagedShard: The committed shard to copy from is damaged.
    """
    kept = {record.uid: record for record in job.kept}
    todo = [asset for asset in job.assets if asset.uid not in kept]
    # The shard may be that of a lost attempt of this task, which rendered the other objects too.
    copies = (copy for copy in (read_samples(job.root, job.name) if kept else ()) if copy[0] in kept)
    with (
        ShardWriter(job.root, job.name) as shard,
        tempfile.TemporaryDirectory(prefix="assets-", dir=scratch_folder()) as scratch,
    ):
        fetched = fetch_ahead(job, todo, Path(scratch))
        records: list[ObjectRecord] = []
        last: ObjectRecord | None = None
        for asset in job.assets:
            if asset.uid in kept:
                records.append(kept[asset.uid])
                if records[-1].status == "ok":
                    uid, sample = next(copies)
                    assert uid == asset.uid
                    shard.add(uid, sample)
                continue
            if last:
                yield last
            sample, last = fetch_and_render(asset, next(fetched), job)
            records.append(last)
            if sample:
                shard.add(asset.uid, sample)
            shutil.rmtree(Path(scratch) / asset.uid)
        shard.commit(records)
    # The last record is held back until the commit, so that a shard counts as complete only when it is committed.
    if last:
        yield last


def fetch_ahead(job: ShardJob, assets: Iterable[Asset], scratch: Path) -> Iterator[Callable[[], Path]]:
    """Yield for each asset a function that returns its local file or raises RenderFailure.

    If the source downloads its files, up to `DOWNLOADS` of the following assets are fetched in the background.

    Args:
        job: Source and limits.
        assets: Objects to fetch, in order.
        scratch: Folder that receives one folder per object, named by its uid.
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
    """Fetch and render one object.

    Args:
        asset: Object to render.
        fetch: Function that returns the object's local file or raises RenderFailure.
        job: Settings of the shard.

    Returns:
        Sample of the object, empty if it failed, and its record.
    """
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
    """Render one object from its local file.

    Args:
        asset: Object to render.
        path: Local file of the object.
        job: Settings of the shard.
        renderer: Blender process to use.

    Returns:
        Sample of the object, and the result of the renderer.

    Raises:
        RenderFailure: The object cannot be rendered.
    """
    with tempfile.TemporaryDirectory(prefix="views-", dir=scratch_folder()) as folder:
        seed = object_seed(job.seed, asset.uid)
        rendered = renderer.render(path, job.settings, seed, Path(folder), job.source.folder())
        views = {file.name: file.read_bytes() for file in sorted(Path(folder).iterdir())}
    try:
        with open(path, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:  # the file was there when Blender read it
        raise RenderFailure("missing", f"{path.name}: {first_line(error)}") from error
    origin = {"uid": asset.uid, "source": asset.origin, "sha256": sha256}
    rights = {"license": asset.license, "author": asset.author}
    meta = json.dumps({**origin, **rights, **rendered.meta}, indent=1)
    return {**views, "meta.json": meta.encode()}, rendered


def object_seed(seed: int, uid: str) -> int:
    """Return the 48-bit seed of an object, which depends only on the seed of the run and the object's uid."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{uid}".encode()).digest()[:6], "big")


@functools.cache
def _renderer(limits: Limits) -> BlenderProcess:
    """Return the Blender process that all shards of this worker share."""
    return BlenderProcess(limits)
