"""Work on pictures spread over this machine's cores. Pillow codes them under Python's lock: threads would not help."""

import ctypes
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Protocol, TypeVar

from conf.options import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")


class ParallelMap(Protocol):
    def __call__(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]: ...


@contextmanager
def process_pool(count: int | None) -> Iterator[ParallelMap]:
    """A `map` over so many processes, by default one per core; they end with this process, however it ends.

    Results come in the order of the items, of which two per process are taken ahead. One process is this one itself.

    Raises:
        UserError: a process was killed.
    """
    count = count or len(os.sched_getaffinity(0))

    def spread(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        if count == 1:
            yield from map(function, items)
            return
        running: deque[Future[Result]] = deque()
        for item in items:
            running.append(pool.submit(function, item))
            if len(running) >= 2 * count:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()

    pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _begin, (os.getpid(),))
    try:
        yield spread
    except BrokenProcessPool as error:
        sentence = "a worker process was killed, for its memory perhaps; the same command continues, try workers=1"
        raise UserError(sentence) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(parent: int) -> None:
    # A parent that is killed cannot stop its children, so the kernel is asked to; it may have been too late for that.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
