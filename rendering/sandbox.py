"""Sandbox of the Blender process: it can read and write only the paths that it needs (Linux Landlock).

It limits the damage of an untrusted file whose attack `rendering.asset_validation` does not detect. The rules hold for
the process and its children and cannot be lifted, see landlock(7).
"""

import ctypes
import os
import sys
from collections.abc import Iterable
from pathlib import Path

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # numbers of system calls, equal on every architecture
NO_NEW_PRIVILEGES = 38  # option of prctl(2)
READ_RIGHTS = 0b1101  # execute, read a file, list a folder
FILE_RIGHTS_COUNT = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # by version of Landlock
TCP_RIGHTS = 0b11  # bind, connect
FILE_RIGHTS = 0b1100000000000111  # rights that apply to a file: execute, write, read, truncate, ioctl
SYSTEM_PATHS = (
    *("/usr", "/lib", "/lib64", "/bin", "/opt", "/nix/store", "/etc/fonts", "/etc/ld.so.cache", "/etc/localtime"),
    *("/proc", "/sys", "/dev/urandom", "/dev/null"),
)
WRITABLE_DEVICES = ("/dev/null", "/dev/shm")


class _RulesetAttributes(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("tcp", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("rights", ctypes.c_uint64), ("folder", ctypes.c_int32))


def landlock_version() -> int:
    """Return the version of Landlock of this kernel, less than 1 if it has none."""
    return int(ctypes.CDLL(None).syscall(CREATE_RULESET, None, 0, 1))


def enter_sandbox(readable: Iterable[str | Path], writable: str | Path) -> bool:
    """Restrict this process for the rest of its life. It cannot open a TCP connection (Landlock 4 and later).

    Args:
        readable: Folders that it can read, besides Python, Blender and the system's libraries.
        writable: Folder that it can write to.

    Returns:
        Whether the kernel has Landlock. If not, nothing is restricted.
    """
    libc, version = ctypes.CDLL(None, use_errno=True), landlock_version()
    if version < 1:
        return False
    rights = (1 << FILE_RIGHTS_COUNT[min(version, 5)]) - 1
    attributes = _RulesetAttributes(rights, TCP_RIGHTS if version >= 4 else 0)
    ruleset = _checked(libc.syscall(CREATE_RULESET, ctypes.byref(attributes), 16 if version >= 4 else 8, 0))
    # The working folder is on sys.path too, but it may be a home folder.
    code: list[str | Path] = [
        Path(__file__).parents[1],
        sys.prefix,
        sys.base_prefix,
        *(set(sys.path) - {"", os.getcwd()}),
    ]
    paths: set[str | Path] = {*SYSTEM_PATHS, *code, *readable}
    for path in paths:
        _allow(libc, ruleset, Path(path), READ_RIGHTS & rights)
    gpu = [*Path("/dev").glob("nvidia*"), Path("/dev/dri"), Path("/dev/kfd")]
    for path in {*(Path(name) for name in WRITABLE_DEVICES), Path(writable), *gpu}:
        _allow(libc, ruleset, path, rights)
    _checked(libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    _checked(libc.syscall(RESTRICT_SELF, ruleset, 0))
    os.close(ruleset)
    return True


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # the path does not exist on this machine
        return
    rule = _PathBeneath(rights if path.is_dir() else rights & FILE_RIGHTS, descriptor)
    _checked(libc.syscall(ADD_RULE, ruleset, 1, ctypes.byref(rule), 0))
    os.close(descriptor)


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
