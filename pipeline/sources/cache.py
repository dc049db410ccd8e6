"""A folder of downloads that is kept below a size: what was not used for longest makes room."""

import contextlib
import fcntl
import os
import shutil
import time
from pathlib import Path

LEDGER = "bytes"  # the file that holds how many bytes there are, and that is locked while they change
ABANDONED = 3600.0  # seconds after which nobody is writing a .part any more


def take(cached: Path, folder: Path) -> Path:
    """`cached` under its name in `folder`, where it stays whatever becomes of the cache.

    A hard link; a copy where the file systems differ. Raises FileNotFoundError where it is not cached.
    """
    os.utime(cached)  # the time of its last use
    taken = folder / cached.name
    try:
        os.link(cached, taken)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(cached, taken)
    return taken


def make_room(root: Path, added: int, capacity: int) -> None:
    """Count `added` new bytes below `root`; above `capacity` remove the least recently used down to nine tenths.

    To look through all files after every download would take longer than the download: a ledger keeps the sum, and
    is put right by a look at the files whenever it exceeds the capacity.
    """
    root.mkdir(parents=True, exist_ok=True)
    with open(root / LEDGER, "a+") as ledger:
        fcntl.flock(ledger, fcntl.LOCK_EX)
        ledger.seek(0)
        known = ledger.read()
        total = int(known) + added if known.isdecimal() else None
        if total is None or total > capacity:
            total = _evict(root, capacity)
        ledger.seek(0)
        ledger.truncate()
        ledger.write(str(total))


def _evict(root: Path, capacity: int) -> int:
    """Remove files if there are more bytes than `capacity`; returns the bytes that remain."""
    files = []
    for path in root.glob("**/*.glb*"):
        with contextlib.suppress(FileNotFoundError):  # a .part that has just been moved into place
            stat = path.stat()
            if path.suffix == ".glb" or stat.st_mtime < time.time() - ABANDONED:
                files.append((stat.st_mtime_ns, stat.st_size, path))
    total = sum(size for _, size, _ in files)
    if total <= capacity:
        return total
    for _, size, path in sorted(files):
        if total <= 0.9 * capacity:
            break
        path.unlink(missing_ok=True)
        total -= size
    return total
