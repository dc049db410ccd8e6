"""Protect the folders and files that commands write: no file of others is replaced, no two commands write one folder.

A command checks its output before it reads or writes anything else. A folder is the command's own where the record
that the command writes there first (`plan.json`, `training.yaml`, …) is present and valid; a single file is its own
where it carries the command's mark. The lock of a folder is a POSIX record lock: the kernel drops it with the process,
so that a killed command can be given again at once, and processes that this one forks do not inherit it.
"""

import contextlib
import errno
import fcntl
import json
import os
import re
import socket
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf.options import UserError
from pipeline.storage import clear_errors, is_local, list_folder, locate, read_file

LOCK = ".lock"
MARK = "Zero-1-to-3"
EDGE = 4096  # bytes at either end of a file among which its mark lies
BUSY = (errno.EACCES, errno.EAGAIN)
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
NOT_WRITABLE = (FileExistsError, NotADirectoryError, PermissionError)


@dataclass(frozen=True)
class FolderLayout:
    """The names in a command's output folder.

    Attributes:
        record: Name of the file that the command writes first.
        is_record: Whether the contents of such a file are this command's.
        writes: Regular expression of the names that the command creates or replaces.
    """

    record: str
    is_record: Callable[[bytes], bool]
    writes: str


@contextmanager
def claimed(url: str, layout: FolderLayout, option: str = "output") -> Iterator[None]:
    """Check that the folder `url` is new or this command's own, and lock it until the block ends.

    Raises:
        UserError: files of others have names that the command writes, or another process is writing there.
    """
    require_own_folder(url, layout, option)
    with locked(url, option):
        yield


def require_own_folder(url: str, layout: FolderLayout, option: str = "output") -> None:
    """Refuse a folder, local or remote, where the command would write over files that it did not make."""
    found = [name for name in names_in(url, option) if re.fullmatch(layout.writes, name)]
    if found and not is_own(url, layout):
        if layout.record in found:
            raise UserError(
                f"{option}={url}: it holds {layout.record} of another command, or a damaged one; choose another folder"
            )
        raise not_own(url, found, option)


def is_own(url: str, layout: FolderLayout) -> bool:
    """Return whether the folder `url`, local or remote, holds the record of this command."""
    if layout.record not in names_in(url):
        return False
    contents = read_file(f"{url.rstrip('/')}/{layout.record}")
    return contents is not None and layout.is_record(contents)


def require_own_file(url: str, is_own: Callable[[bytes], bool], option: str = "output") -> None:
    """Refuse a file, local or remote, that exists and whose first and last bytes are not the command's own."""
    fs, path = locate(url)
    with clear_errors(fs, url):
        if not fs.exists(path):
            return
        if not fs.isfile(path):
            raise UserError(f"{option}={url}: it exists and is not a file; choose another path")
        size = fs.size(path)
        edges = fs.cat_file(path, 0, EDGE) + fs.cat_file(path, max(0, size - EDGE)) if size else b""
    if edges and not is_own(edges):
        raise UserError(f"{option}={url}: this command did not write that file; choose another path, or delete it")


def mark(command: str) -> str:
    """Return the text that a file of `command` carries in its metadata."""
    return f"{MARK} {command}"


def is_marked(command: str) -> Callable[[bytes], bool]:
    """Return a check for `require_own_file`: whether the file carries the mark of `command`."""
    return lambda edges: mark(command).encode() in edges


def not_own(url: str | Path, names: Collection[str], option: str = "output") -> UserError:
    """Return the error for a folder that holds files of others with names that the command writes."""
    more = f" and {len(names) - 1} others" if len(names) > 1 else ""
    return UserError(
        f"{option}={url}: it holds {min(names)}{more}, which this command did not write there; choose another folder"
    )


def require_apart(output: str, source: str, option: str, nested: bool = True, name: str = "output") -> None:
    """Refuse an output that is the folder `source`, links followed; with `nested` also one inside or around it.

    Args:
        output: Folder or URL to be written.
        source: Folder or URL that the command reads.
        option: Name of the option that gave `source`.
        nested: Whether either folder must not lie in the other.
        name: Name of the option that gave `output`.
    """
    one, two = _parts(output), _parts(source)
    shared = min(len(one), len(two))
    if one[:shared] != two[:shared] or (len(one) != len(two) and not nested):
        return
    where = "the folder" if len(one) == len(two) else "inside the folder" if len(one) > shared else "around the folder"
    raise UserError(f"{name}={output}: it is {where} of {option}={source}; choose a folder apart from that")


def names_in(url: str, option: str = "output") -> list[str]:
    """Return the sorted names in the folder `url`, none where there is no such folder.

    Raises:
        UserError: a file lies there.
    """
    if is_local(url) and (path := Path(locate(url)[1])).exists() and not path.is_dir():
        raise UserError(f"{option}={url}: {path} is no folder that can be written to; choose another path")
    names = {path.rstrip("/").rsplit("/", 1)[-1] for path in list_folder(url)}
    return sorted(names - {LOCK})


def json_object(contents: bytes) -> dict[str, Any]:
    """Return the JSON object in `contents`, an empty one where they hold something else."""
    try:
        found = json.loads(contents)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


@contextmanager
def locked(url: str, option: str = "output", name: str = LOCK) -> Iterator[None]:
    """Lock the local folder `url` for this process until the block ends; a URL of a store has no locks.

    The folder is made. Where it is still empty at the end, it is removed again with the parents that were made.
    `name` is the name of the lock file, which another lock in the same folder must not have.

    Raises:
        UserError: another process holds the lock, or the folder cannot be written to.
    """
    if not is_local(url):
        yield
        return
    folder, owner = Path(locate(url)[1]), os.getpid()
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        lock = _acquire(folder / name, f"{option}={url}")
    except NOT_WRITABLE as error:
        there = next(path for path in (folder, *folder.parents) if path.exists())
        raise UserError(f"{option}={url}: {there} is no folder that can be written to; choose another path") from error
    try:
        yield
    finally:
        if os.getpid() == owner:  # a forked process that unwinds this block leaves the folder to its parent
            with contextlib.suppress(FileNotFoundError):
                (folder / name).unlink()
            os.close(lock)
            for path in new:
                try:
                    path.rmdir()
                except OSError:  # something was written there
                    break


def _acquire(path: Path, output: str) -> int:
    """Return the descriptor of the file `path`, locked."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(file, 200, 0).decode(errors="replace")
            if error.errno in BUSY:
                os.close(file)
                sentence = f"{output}: {holder or 'another process'} is writing there"
                raise UserError(f"{sentence}; wait for its end, or choose another output") from None
            if error.errno not in NO_LOCKS:
                os.close(file)
                raise
            print(f"{output}: its file system has no locks; give no second command there meanwhile", file=sys.stderr)
        # Its holder may have removed the file between the two calls above.
        if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
            with contextlib.suppress(PermissionError):  # another user made it
                os.fchmod(file, 0o666)
            os.ftruncate(file, 0)
            os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
            return file
        os.close(file)


def _parts(url: str) -> tuple[str, ...]:
    """Return the file system and the folders of a path or URL, with links followed on this machine."""
    fs, path = locate(url)
    if is_local(url):
        return Path(os.path.realpath(path)).parts
    protocol = fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0]
    return (protocol, *path.strip("/").split("/"))
