"""Report the progress of a rendering in `progress.json` and in a W&B run.

Both are computed from object records and committed shards. Workers are not queried, so the cost does not depend on
their number.
"""

import hashlib
import io
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from conf.options import first_line
from conf.tracking import WandbMode, begin
from pipeline.config import RenderConfig
from pipeline.plan import ShardJob
from pipeline.progress import Progress, State, Tally, read_fields, records, write
from pipeline.samples import read_samples, view_names
from pipeline.shards import ObjectRecord, ShardManifest, read_plan
from pipeline.storage import is_local
from rendering.failure import REASONS
from rendering.picture_grid import picture_grid

HEARTBEAT_S = 5.0  # between two writes of progress.json
PICTURES = "pictures"
ROWS, COLUMNS, SIDE_PX = 8, 6, 128  # contact sheet: objects, views per object, side of a view


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
    session_start = time.time()
    before = read_fields(config.output) or {}
    started = before.get("started", session_start)
    run_id = before.get("wandb") or hashlib.sha256(f"{config.output} {started}".encode()).hexdigest()[:12]
    shards = {asset.uid: job.name for job in jobs for asset in job.assets}
    for job in jobs:
        for record in job.kept:
            del shards[record.uid]
    tally = Tally(shards, (r for r in records(done) if r.uid not in shards), config.renderer.views, session_start)
    run = None
    if config.wandb.mode is not WandbMode.disabled:
        run = _begin(config, run_id)
    lock, stop = threading.Lock(), threading.Event()
    committed: list[str] = []
    last_log = shown = 0.0

    def add(record: ObjectRecord) -> None:
        with lock:
            if shard := tally.add(record, time.time()):
                committed.append(shard)

    def publish(state: State) -> None:
        nonlocal last_log, shown
        now = time.time()
        with lock:
            progress = tally.progress(now, state, started, run_id if run else "")
        _try_write("progress.json", lambda: write(config.output, progress))
        if run and (state != "running" or now - last_log >= config.wandb.log_every):
            # W&B steps must increase over all sessions, so a step counts seconds since the first start.
            last_log, step = now, int(now - started)
            _try_write("W&B's curves", lambda: run.log(figures(progress), step=step))
            if len(committed) > shown:
                name, shown = committed[-1], len(committed) - 1 + config.wandb.pictures_every
                _try_write("W&B's pictures", lambda: _show(run, config.output, name, step))

    def heartbeat() -> None:
        while not stop.wait(HEARTBEAT_S):
            publish("running")

    publish("running")
    thread = threading.Thread(target=heartbeat, name="monitor", daemon=True)
    thread.start()
    try:
        yield add
    finally:
        stop.set()
        thread.join()
        complete = tally.complete
        publish("finished" if complete else "stopped")
        if run:
            _try_write("the end of the W&B run", lambda: run.finish(exit_code=0 if complete else 1))


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
    """Return the first views of a committed shard on white, one object per row, or None if the shard has no views.

    Raises:
        DamagedShard: The tar is missing or damaged.
        OSError: A view cannot be decoded.
    """
    rows = []
    for _, sample in islice(read_samples(root, name), ROWS):
        views = [Image.open(io.BytesIO(sample[view])).convert("RGBA") for view in view_names(sample)[:COLUMNS]]
        for view in views:
            view.thumbnail((SIDE_PX, SIDE_PX))
        rows.append(views)
    return picture_grid(rows) if rows else None


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


def _try_write(name: str, write: Callable[[], None]) -> None:
    """Call `write`; report an error and continue, because progress is worth less than the rendering."""
    try:
        write()
    except Exception as error:  # W&B raises many types, for example if its process was killed
        tqdm.write(f"  {name} cannot be written ({first_line(error)}); the rendering continues", file=sys.stderr)
