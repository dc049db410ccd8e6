"""Keep the temporary files of a process in one folder, which is removed even if the process is killed.

A killed process leaves its folder, but the kernel drops the lock of the folder. The next process that makes such a
folder removes all that are not locked.
"""

import contextlib
import fcntl
import functools
import os
import shutil
import tempfile
from pathlib import Path

from conf.environment import remove_at_end

PREFIX = "zero123-"
LOCK = ".lock"


def scratch_folder() -> Path:
    """Return the folder for temporary files of this process, made at the first call in the folder of `tempfile`."""
    return _make(tempfile.gettempdir(), os.getpid())


@functools.cache
def _make(parent: str, owner: int) -> Path:
    """Make the folder of the process `owner` in `parent`, lock it, and remove it when the process ends."""
    remove_abandoned(parent)
    unlocked = Path(tempfile.mkdtemp(prefix=f"new-{PREFIX}", dir=parent))
    lock = os.open(unlocked / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)  # open until the process ends
    with contextlib.suppress(OSError):  # a file system without locks, on which no folder counts as abandoned
        fcntl.flock(lock, fcntl.LOCK_EX)
    folder = unlocked.rename(unlocked.with_name(unlocked.name.removeprefix("new-")))
    remove_at_end(str(folder))
    return folder


def remove_abandoned(parent: str | None = None) -> None:
    """Remove the folders of processes that were killed.

    Args:
        parent: Folder to search, by default that of `tempfile`.
    """
    for folder in Path(parent or tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # in use, of another user, or removed by another process
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
