"""Show the progress of a reconstruction: a bar for each stage, and a preview picture every few seconds."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from inference.reconstruction.monitor import Monitor, Pixels
from inference.views.media import png
from pipeline.storage import write_atomically

PREVIEW_S = 5.0  # between two previews


@contextmanager
def shown_progress(preview: Path) -> Iterator[Monitor]:
    """Yield callbacks that draw bars on the terminal and write the file `preview`."""
    bars: dict[str, tqdm] = {}
    last = time.monotonic()

    def on_progress(stage: str, done: int, total: int, loss: float | None) -> None:
        if stage not in bars:
            for bar in bars.values():
                bar.close()
            bars[stage] = tqdm(desc=stage, unit=" steps")
        bar = bars[stage]
        bar.total = total
        if loss is not None:
            bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
        bar.update(done - bar.n)

    def on_preview(render: Callable[[], Pixels]) -> None:
        nonlocal last
        if time.monotonic() - last > PREVIEW_S:
            write_atomically(str(preview), png(render()))
            last = time.monotonic()

    try:
        yield Monitor(on_progress, on_preview)
    finally:
        for bar in bars.values():
            bar.close()
