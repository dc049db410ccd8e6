"""Size-limited folder of downloads that evicts the least recently used files."""

import contextlib
import fcntl
import os
import shutil
import time
from pathlib import Path

LEDGER = "bytes"  # file with the total size of the cache in bytes; locked while the total changes
ABANDONED_AFTER_S = 3600.0  # seconds without a change after which a .part file counts as abandoned


def take(cached: Path, folder: Path) -> Path:
    """Link `cached` into `folder`, so that the file survives eviction from the cache.

    The file is copied where a hard link is impossible, for example across file systems.

    Args:
        cached: File in the cache. Its modification time is set to now, as the time of last use.
        folder: Folder that receives the file under its own name.

    Returns:
        Path of the file in `folder`.

    Raises:
        FileNotFoundError: `cached` does not exist.
    """
    os.utime(cached)  # eviction orders files by this time
    taken = folder / cached.name
    try:
        os.link(cached, taken)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(cached, taken)
    return taken


def make_room(root: Path, added: int, capacity: int) -> None:
    """Add `added` to the recorded size of the cache and evict files when the size exceeds `capacity`.

    Eviction removes the least recently used files until nine tenths of `capacity` remain. A ledger file keeps the
    total, because listing all files after every download would take longer than the download. The total is
    recomputed from the files whenever the ledger exceeds `capacity` or cannot be read.

    Args:
        root: Folder of the cache.
        added: Size of the new file in bytes.
        capacity: Maximum size of the cache in bytes.
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
    """Remove the least recently used files if the cache exceeds `capacity` bytes; return its size in bytes."""
    files = []
    for path in root.glob("**/*.glb*"):
        with contextlib.suppress(FileNotFoundError):  # another process may just have renamed a .part file
            stat = path.stat()
            if path.suffix == ".glb" or stat.st_mtime < time.time() - ABANDONED_AFTER_S:
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
