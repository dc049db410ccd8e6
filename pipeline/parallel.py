"""Parallel map over the cores of this machine, for image coding.

Processes are used, because Pillow codes images while it holds Python's global lock and threads would not run faster.
"""

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
    """Signature of the parallel `map` that `process_pool` provides."""

    def __call__(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield `function(item)` for each item, in the order of `items`."""
        ...


@contextmanager
def process_pool(count: int | None) -> Iterator[ParallelMap]:
    """Provide a `map` over worker processes, which end when this process ends, even if it is killed.

    Results keep the order of the items. Up to two items per process are submitted ahead of the result in use.

    Args:
        count: Number of processes, by default one per core. With 1 the calls are made in this process.

    Yields:
        The parallel `map`.

    Raises:
        UserError: A worker process was killed.
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
        sentence = "a worker process was killed, probably for lack of memory; repeat the command with workers=1"
        raise UserError(sentence) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(parent: int) -> None:
    # A killed parent cannot stop its children, so prctl(PR_SET_PDEATHSIG) makes the kernel kill this process with the
    # parent. The check after it covers a parent that ended before the call.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
