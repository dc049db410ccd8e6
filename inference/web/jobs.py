"""Drawing that others watch and can call off."""

from collections.abc import Callable, Generator
from concurrent.futures import Executor
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event
from time import perf_counter
from typing import TypeVar

Result = TypeVar("Result")
OnStep = Callable[[int, int], object]
REFRESH = 0.1  # seconds between two reports, at least


@dataclass(frozen=True)
class Progress:
    done: int
    total: int
    seconds: float  # since the start

    @property
    def seconds_left(self) -> float:
        return self.seconds / self.done * (self.total - self.done)


class Superseded(Exception):
    """Nobody waits for it any more."""


def run_with_progress(
    device: Executor, draw: Callable[[OnStep], Result], wanted: Callable[[], bool]
) -> Generator[Progress, None, Result]:
    """Let `device` draw, yield how far it is, and return what was drawn.

    `draw` hands the steps made and to be made to its `on_step`. At a step where it is no longer `wanted`, or where this
    generator was closed, it ends.

    Raises:
        Superseded: it was no longer wanted.
    """
    steps, gone, start = SimpleQueue[tuple[int, int] | None](), Event(), perf_counter()

    def on_step(done: int, total: int) -> None:
        if gone.is_set() or not wanted():
            raise Superseded
        steps.put((done, total))

    def begin() -> Result:
        if gone.is_set() or not wanted():
            raise Superseded
        return draw(on_step)

    future = device.submit(begin)
    future.add_done_callback(lambda _: steps.put(None))
    told = -REFRESH
    try:
        while (step := steps.get()) is not None:
            seconds = perf_counter() - start
            if seconds - told >= REFRESH:
                told = seconds
                yield Progress(*step, seconds)
        return future.result()
    finally:
        gone.set()
