"""Protect output folders and files from foreign overwrites and concurrent writers.

A command checks its output before it reads or writes anything else. A folder belongs to a command if it contains a
valid record that the command writes first (`plan.json`, `training.yaml`, …); a file belongs to a command if it contains
the command's mark. The lock of a folder is a POSIX record lock: the kernel releases it when the process ends, so a
killed command can be restarted immediately, and forked processes do not inherit it.
"""

import contextlib
import errno
import fcntl
import json
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf.options import UserError
from pipeline.storage import clear_errors, is_local, list_folder, locate, read_file

LOCK = ".lock"
MARK = "Zero-1-to-3"
EDGE = 4096  # bytes at each end of a file that are searched for its mark
BUSY = (errno.EACCES, errno.EAGAIN)
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
SHARING_WAIT_S = 20.0  # until the files of another machine must be visible, which network file systems may show late
NOT_WRITABLE = (FileExistsError, NotADirectoryError, PermissionError)


@dataclass(frozen=True)
class FolderLayout:
    """Describe the file names in a command's output folder.

    Attributes:
        record: Name of the file that the command writes first.
        is_record: Check whether the contents of that file were written by this command.
        writes: Regular expression of the names that the command creates or replaces.
    """

    record: str
    is_record: Callable[[bytes], bool]
    writes: str


@contextmanager
def claimed(url: str, layout: FolderLayout, option: str = "output") -> Iterator[None]:
    """Check that the folder `url` is new or belongs to this command, and lock it until the block ends.

    Raises:
        UserError: Foreign files have names that the command writes, or another process holds the lock.
    """
    require_own_folder(url, layout, option)
    with locked(url, option):
        yield


def require_own_folder(url: str, layout: FolderLayout, option: str = "output") -> None:
    """Raise an error if the command would overwrite foreign files in the local or remote folder `url`."""
    found = [name for name in names_in(url, option) if re.fullmatch(layout.writes, name)]
    if found and not is_own(url, layout):
        if layout.record in found:
            raise UserError(
                f"{option}={url}: holds {layout.record} of another command, or a damaged one; choose another folder"
            )
        raise not_own(url, found, option)


def is_own(url: str, layout: FolderLayout) -> bool:
    """Return whether the local or remote folder `url` contains the record of this command."""
    if layout.record not in names_in(url):
        return False
    contents = read_file(f"{url.rstrip('/')}/{layout.record}")
    return contents is not None and layout.is_record(contents)


def require_own_file(url: str, is_own: Callable[[bytes], bool], option: str = "output") -> None:
    """Raise an error if the local or remote file `url` exists and `is_own` rejects its first and last bytes."""
    fs, path = locate(url)
    with clear_errors(fs, url):
        if not fs.exists(path):
            return
        if not fs.isfile(path):
            raise UserError(f"{option}={url}: not a file; choose another path")
        size = fs.size(path)
        edges = fs.cat_file(path, 0, EDGE) + fs.cat_file(path, max(0, size - EDGE)) if size else b""
    if edges and not is_own(edges):
        raise UserError(f"{option}={url}: the file was not written by this command; choose another path, or delete it")


def mark(command: str) -> str:
    """Return the text that files of `command` contain in their metadata."""
    return f"{MARK} {command}"


def is_marked(command: str) -> Callable[[bytes], bool]:
    """Return a check for `require_own_file` that searches for the mark of `command`."""
    return lambda edges: mark(command).encode() in edges


def not_own(url: str | Path, names: Collection[str], option: str = "output") -> UserError:
    """Return the error for a folder with foreign files whose names the command writes."""
    more = f" and {len(names) - 1} others" if len(names) > 1 else ""
    return UserError(f"{option}={url}: holds {min(names)}{more}, not written by this command; choose another folder")


def require_apart(output: str, source: str, option: str, nested: bool = True, name: str = "output") -> None:
    """Raise an error if `output` and `source` are one folder or, with `nested`, if either contains the other.

    Args:
        output: Folder or URL to write; symbolic links are resolved.
        source: Folder or URL that the command reads.
        option: Name of the option that gave `source`.
        nested: Whether to reject nested folders too.
        name: Name of the option that gave `output`.
    """
    one, two = _parts(output), _parts(source)
    shared = min(len(one), len(two))
    if one[:shared] != two[:shared] or (len(one) != len(two) and not nested):
        return
    where = "the folder" if len(one) == len(two) else "inside the folder" if len(one) > shared else "around the folder"
    raise UserError(f"{name}={output}: must not be {where} of {option}={source}; choose another folder")


def require_shared(url: str, names: Collection[str]) -> None:
    """Check that the folder `url` has the files `names`, which other machines may have written.

    Raises:
        UserError: Files are missing, since a machine wrote them to a folder of its own.
    """
    end = time.monotonic() + SHARING_WAIT_S
    while missing := set(names) - set(names_in(url)):
        if time.monotonic() > end:
            found = f"{len(missing)} of {len(names)} files that were written, such as {min(missing)}, are not there"
            raise UserError(f"output={url}: {found}; name a folder that all machines share, or s3://bucket/folder")
        time.sleep(0.5)


def names_in(url: str, option: str = "output") -> list[str]:
    """Return the sorted names in the folder `url`, or an empty list if it does not exist.

    Raises:
        UserError: `url` is a file.
    """
    if is_local(url) and (path := Path(locate(url)[1])).exists() and not path.is_dir():
        raise UserError(f"{option}={url}: {path} is not a writable folder; choose another path")
    names = {path.rstrip("/").rsplit("/", 1)[-1] for path in list_folder(url)}
    return sorted(names - {LOCK})


def json_object(contents: bytes) -> dict[str, Any]:
    """Return the JSON object in `contents`, or an empty one if they are not a JSON object."""
    try:
        found = json.loads(contents)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


@contextmanager
def locked(url: str, option: str = "output", name: str = LOCK) -> Iterator[None]:
    """Lock the local folder `url` for this process until the block ends; remote URLs are not locked.

    The folder is created if missing. Created folders that are still empty at the end are removed.

    Args:
        url: Folder or URL to lock.
        option: Name of the option that gave `url`.
        name: Name of the lock file, unique among the locks of the folder.

    Raises:
        UserError: Another process holds the lock, or the folder is not writable.
    """
    if not is_local(url):
        yield
        return
    folder, owner = Path(locate(url)[1]), os.getpid()
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        lock = _acquire(folder / name, f"{option}={url}")
    except NOT_WRITABLE as error:
        there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
        raise UserError(f"{option}={url}: {there} is not a writable folder; choose another path") from error
    try:
        yield
    finally:
        if os.getpid() == owner:  # a forked process must not remove its parent's lock
            with contextlib.suppress(FileNotFoundError):
                (folder / name).unlink()
            os.close(lock)
            for path in new:
                try:
                    path.rmdir()
                except OSError:  # the folder is not empty
                    break


def _acquire(path: Path, output: str) -> int:
    """Lock the file `path` and return its descriptor."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(file, 200, 0).decode(errors="replace")
            if error.errno in BUSY:
                os.close(file)
                writer = holder or "another process"
                raise UserError(f"{output}: {writer} is writing there; wait until it ends, or choose another") from None
            if error.errno not in NO_LOCKS:
                os.close(file)
                raise
            print(f"{output}: its file system has no locks; run one command at a time there", file=sys.stderr)
        # The previous holder may have removed the file between `os.open` and `lockf`.
        if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
            with contextlib.suppress(PermissionError):  # another user owns the file
                os.fchmod(file, 0o666)
            os.ftruncate(file, 0)
            os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
            return file
        os.close(file)


def _parts(url: str) -> tuple[str, ...]:
    """Return the protocol and path components of `url`; local symbolic links are resolved."""
    fs, path = locate(url)
    if is_local(url):
        return Path(os.path.realpath(path)).parts
    protocol = fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0]
    return (protocol, *path.strip("/").split("/"))
