"""Loader workers: shared memory for their batches, their signal handling, and the report of a worker that died."""

import math
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.context import ForkContext, ForkProcess
from multiprocessing.popen_fork import Popen
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from conf.options import UserError

LOCKS_FOLDER = "/dev/shm"  # Linux keeps the locks of multiprocessing here
LOCKS_BYTES_PER_TEN_WORKERS = 1 << 20  # a lock takes a page


class WorkerLoader(DataLoader[Any]):
    """A data loader whose workers need no `/dev/shm` for batches, ignore signals, and end with this process.

    A worker yields a `UserError` in place of a batch; the loader raises it here.
    """

    _waiting_since: float | None = None

    def __init__(self, dataset: Any, batch_size: int, workers: int, **options: Any) -> None:
        super().__init__(
            dataset,
            batch_size,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_ignore_signals,
            multiprocessing_context=_KillingContext() if workers and sys.platform == "linux" else None,
            **options,
        )

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # a generator is an iterator
        if self.num_workers:
            _require_space_for_locks(self.num_workers)
        batches = super().__iter__()
        while (batch := self._next(batches)) is not None:
            if isinstance(batch, UserError):
                # End the workers now; garbage collection would wait 5 s for each.
                self._iterator = batches = None  # type: ignore[assignment]
                raise batch
            yield batch

    def seconds_waited(self) -> float:
        """Return how long the training process has been waiting for the next batch; 0 if it is not waiting."""
        return 0.0 if self._waiting_since is None else time.monotonic() - self._waiting_since

    def _next(self, batches: Iterator[Any]) -> Any | None:
        self._waiting_since = time.monotonic()
        try:
            return next(batches, None)
        finally:
            self._waiting_since = None


@contextmanager
def report_dead_workers() -> Iterator[None]:
    """Raise a `UserError` if torch reports, anywhere in the main thread, that a loader worker has died."""
    try:
        yield
    except RuntimeError as error:
        if not (report := _report_of_death(error)):
            raise
        if "Bus error" in report:
            raise UserError(
                f"data.workers: a worker ran out of shared memory ({report}); enlarge {LOCKS_FOLDER} "
                "(docker run --shm-size=1g), or set data.workers=0"
            ) from error
        raise UserError(
            f"data.workers: a worker died ({report}), perhaps for lack of memory; run the same command to resume, with "
            "a smaller data.workers or data.cache_mb if memory is short"
        ) from error


def _report_of_death(error: BaseException | None) -> str:
    """Return torch's message about a dead worker, the one nearest to the cause, or an empty string."""
    report = ""
    while error is not None:
        if str(error).startswith("DataLoader worker (pid"):
            report = str(error).split(".")[0]
        error = error.__cause__ or error.__context__
    return report


def shared_zeros(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return a tensor of zeros in memory that other processes can map.

    On Linux this is an anonymous file, which the size of `/dev/shm` does not limit (64 MB in Docker). torch passes its
    file descriptor between processes, as for its own shared memory.
    """
    size = max(1, math.prod(shape)) * dtype.itemsize
    try:
        descriptor = os.memfd_create("batch")
    except (AttributeError, OSError):  # not Linux, or forbidden in a sandbox
        return torch.zeros(tuple(shape), dtype=dtype).share_memory_()
    try:
        os.ftruncate(descriptor, size)
        storage = torch.UntypedStorage._new_shared_fd_cpu(descriptor, size)  # type: ignore[attr-defined]
    finally:
        os.close(descriptor)
    return torch.empty(0, dtype=dtype).set_(storage)[: math.prod(shape)].view(tuple(shape))


def _require_space_for_locks(workers: int) -> None:
    try:
        status = os.statvfs(LOCKS_FOLDER)
    except FileNotFoundError:
        if sys.platform != "linux":
            return
        raise UserError(f"data.workers={workers}: this machine has no {LOCKS_FOLDER}; use data.workers=0") from None
    needed = LOCKS_BYTES_PER_TEN_WORKERS * (1 + workers // 10)
    if status.f_blocks and status.f_bavail * status.f_frsize < needed:
        raise UserError(
            f"data.workers={workers}: {LOCKS_FOLDER} has less than {needed >> 20} MB left; free or enlarge it "
            "(docker run --shm-size=1g), or set data.workers=0"
        )


def _ignore_signals(_: int) -> None:
    """Ignore SIGTERM and SIGINT, which Slurm and Ctrl-C send to workers too: training needs them to save its state."""
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, signal.SIG_IGN)


class _KillingPopen(Popen):
    def terminate(self) -> None:
        """Kill the worker, which ignores SIGTERM; Python would wait for it at exit without end."""
        self.kill()


class _KilledProcess(ForkProcess):
    _Popen = _KillingPopen


class _KillingContext(ForkContext):
    Process = _KilledProcess
