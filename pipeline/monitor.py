"""Report the progress of a rendering in `progress.json` and in a W&B run.

Both are computed from object records and committed shards. Workers are not queried, so the cost does not depend on
their number.
"""

import hashlib
import io
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from conf.tracking import WandbMode, begin
from pipeline.config import RenderConfig
from pipeline.plan import ShardJob
from pipeline.progress import Progress, State, Tally, read_fields, records, write
from pipeline.shards import VIEW, ObjectRecord, ShardManifest, read_plan
from pipeline.storage import is_local, open_file
from rendering.failure import REASONS

HEARTBEAT = 5.0  # seconds between two writes of progress.json
PICTURES = "pictures"
ROWS, COLUMNS, SIDE = 8, 6, 128  # contact sheet: objects, views per object, pixels per side of a view


@contextmanager
def monitored(
    config: RenderConfig, jobs: Sequence[ShardJob], done: Iterable[ShardManifest]
) -> Iterator[Callable[[ObjectRecord], None]]:
    """Publish progress periodically until the block ends.

    The final state is published even if the block raises. A failed write is reported and does not stop the rendering.

    Args:
        config: Configuration of the rendering.
        jobs: Shards still to render.
        done: Shards committed in earlier sessions.

    Yields:
        Callback to call with each object record of `jobs`.
    """
    began = time.time()
    before = read_fields(config.output) or {}
    started = before.get("started", began)
    run_id = before.get("wandb") or hashlib.sha256(f"{config.output} {started}".encode()).hexdigest()[:12]
    shards = {asset.uid: job.name for job in jobs for asset in job.assets}
    for job in jobs:
        for record in job.kept:
            del shards[record.uid]
    tally = Tally(shards, (r for r in records(done) if r.uid not in shards), config.renderer.views, began)
    run = None
    if config.wandb.mode is not WandbMode.disabled:
        run = _begin(config, run_id)
    lock, stop = threading.Lock(), threading.Event()
    committed: list[str] = []
    logged = shown = 0.0

    def seen(record: ObjectRecord) -> None:
        with lock:
            if shard := tally.add(record, time.time()):
                committed.append(shard)

    def publish(state: State) -> None:
        nonlocal logged, shown
        now = time.time()
        with lock:
            progress = tally.progress(now, state, started, run_id if run else "")
        _going_on("progress.json", lambda: write(config.output, progress))
        if run and (state != "running" or now - logged >= config.wandb.log_every):
            # W&B steps must increase over all sessions, so a step counts seconds since the first start.
            logged, step = now, int(now - started)
            run.log(figures(progress), step=step)
            if len(committed) > shown:
                name, shown = committed[-1], len(committed) - 1 + config.wandb.pictures_every
                _going_on("W&B's pictures", lambda: _show(run, config.output, name, step))

    def heartbeat() -> None:
        while not stop.wait(HEARTBEAT):
            publish("running")

    publish("running")
    thread = threading.Thread(target=heartbeat, name="monitor", daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()
        complete = tally.complete
        publish("finished" if complete else "stopped")
        if run:
            run.finish(exit_code=0 if complete else 1)


def figures(progress: Progress) -> dict[str, float]:
    """Return the W&B metrics of a rendering by name."""
    failed = sum(progress.failed.values())
    nodes = progress.nodes.values()
    reasons: dict[str, int] = {**dict.fromkeys(REASONS, 0), **progress.failed}
    return {
        "objects": progress.done,
        "views": progress.views,
        "bytes": progress.bytes,
        "objects_per_second": progress.recent_objects_per_second,
        "views_per_second": progress.recent_views_per_second,
        "failure_rate": failed / max(progress.done, 1),
        **{f"failed/{reason}": count for reason, count in reasons.items()},
        **{f"phase_seconds/{name}": phase.seconds for name, phase in progress.phases.items()},
        **{f"phase_share/{name}": phase.share for name, phase in progress.phases.items()},
        "utilisation": sum(node.utilisation for node in nodes) / max(len(nodes), 1),
        **{f"nodes/{name}/utilisation": node.utilisation for name, node in progress.nodes.items()},
        **{f"nodes/{name}/objects": node.objects for name, node in progress.nodes.items()},
    }


def contact_sheet(root: str, name: str) -> Image.Image | None:
    """Return the first views of a committed shard on white, one object per row, or None if the shard has no views."""
    rows: dict[str, list[Image.Image]] = {}
    # webdataset would import torch into the driver; a stream also stops after the last view shown.
    with open_file(f"{root}/{name}.tar") as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            uid, _, extension = member.name.partition(".")
            if not VIEW.fullmatch(extension) or len(rows.get(uid, ())) == COLUMNS:
                continue
            if uid not in rows and len(rows) == ROWS:
                break
            contents = tar.extractfile(member)
            assert contents, f"{member.name} is no file"
            view = Image.open(io.BytesIO(contents.read())).convert("RGBA")
            view.thumbnail((SIDE, SIDE))
            rows.setdefault(uid, []).append(view)
    if not rows:
        return None
    width, height = next(iter(rows.values()))[0].size
    sheet = Image.new("RGB", (max(map(len, rows.values())) * width, len(rows) * height), "white")
    for y, views in enumerate(rows.values()):
        for x, view in enumerate(views):
            sheet.paste(view, (x * width, y * height), view)
    return sheet


def _begin(config: RenderConfig, run_id: str) -> Any:
    folder = config.output if is_local(config.output) else "."
    Path(folder).mkdir(parents=True, exist_ok=True)
    name = config.output.rstrip("/").rsplit("/", 1)[-1]
    plan = {"output": config.output, **(read_plan(config.output) or {})}
    run = begin(config.wandb, folder, "rendering", name, plan, run_id)
    run.define_metric("objects")
    run.define_metric("*", step_metric="objects")
    return run


def _show(run: Any, root: str, name: str, step: int) -> None:
    import wandb

    if sheet := contact_sheet(root, name):
        run.log({PICTURES: wandb.Image(sheet, caption=name)}, step=step)


def _going_on(what: str, action: Callable[[], None]) -> None:
    try:
        action()
    except (OSError, tarfile.TarError) as error:
        tqdm.write(f"  {what} cannot be written ({error!r}); the rendering goes on", file=sys.stderr)
