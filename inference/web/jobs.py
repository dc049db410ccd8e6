"""Run sampling on the device with progress reports and cancellation."""

from collections.abc import Callable, Generator
from concurrent.futures import Executor
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event
from time import perf_counter
from typing import TypeVar

Result = TypeVar("Result")
OnStep = Callable[[int, int], object]
REPORT_INTERVAL_S = 0.1  # shortest time between two reports


@dataclass(frozen=True)
class Progress:
    """Steps done and in total, and the seconds since the start."""

    done: int
    total: int
    seconds: float

    @property
    def seconds_left(self) -> float:
        """Remaining time at the mean speed so far."""
        return self.seconds / self.done * (self.total - self.done)


class Superseded(Exception):
    """The job was cancelled, because its result is no longer wanted."""


def run_with_progress(
    device: Executor, sample: Callable[[OnStep], Result], wanted: Callable[[], bool]
) -> Generator[Progress, None, Result]:
    """Run `sample` on `device`, yield its progress and return its result.

    It is cancelled at the first step at which it is not `wanted` or this generator has been closed.

    Args:
        device: Runs one job at a time.
        sample: Takes `on_step`, to be called with the numbers of steps done and in total.
        wanted: Whether the result is still wanted; called on the device's thread.

    Raises:
        Superseded: The result was no longer wanted.
    """
    steps, closed, start = SimpleQueue[tuple[int, int] | None](), Event(), perf_counter()

    def check() -> None:
        if closed.is_set() or not wanted():
            raise Superseded

    def on_step(done: int, total: int) -> None:
        check()
        steps.put((done, total))

    def job() -> Result:
        check()
        return sample(on_step)

    future = device.submit(job)
    future.add_done_callback(lambda _: steps.put(None))
    reported = -REPORT_INTERVAL_S
    try:
        while (step := steps.get()) is not None:
            seconds = perf_counter() - start
            if seconds - reported >= REPORT_INTERVAL_S:
                reported = seconds
                yield Progress(*step, seconds)
        return future.result()
    finally:
        closed.set()
