"""The second wall: the kernel lets the process that holds Blender read and write only what it needs (Linux Landlock).

What `rendering.asset_validation` overlooks in an asset then finds nothing to read, nowhere to write and nobody to call.
See landlock(7); the rules hold for the process and its children and cannot be taken back.
"""

import ctypes
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same on every architecture
NO_NEW_PRIVILEGES = 38
READ = 0b1101  # execute, read a file, list a folder
FILES = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # version of Landlock: how many rights over files it knows
TCP = 0b11  # bind, connect
FILE_RIGHTS = 0b1100000000000111  # those that make sense for a file: execute, write, read, truncate, ioctl
SYSTEM = (
    *("/usr", "/lib", "/lib64", "/bin", "/opt", "/nix/store", "/etc/fonts", "/etc/ld.so.cache", "/etc/localtime"),
    *("/proc", "/sys", "/dev/urandom", "/dev/null"),
)
DEVICES = ("/dev/null", "/dev/shm")  # and those of a GPU, below


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("tcp", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("rights", ctypes.c_uint64), ("folder", ctypes.c_int32))


def enter_sandbox(roots: Iterable[str | Path]) -> bool:
    """From here on this process reads Python, Blender, the system's libraries and `roots`; it writes to the folder
    for temporary files alone and opens no TCP connection.

    False where the kernel has no Landlock.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(CREATE_RULESET, None, 0, 1)
    if version < 1:
        return False
    rights = (1 << FILES[min(version, 5)]) - 1
    wanted = _Ruleset(rights, TCP if version >= 4 else 0)
    ruleset = _checked(libc.syscall(CREATE_RULESET, ctypes.byref(wanted), 16 if version >= 4 else 8, 0))
    # The folder that a command is given in is on sys.path, yet may be anybody's home.
    code: list[str | Path] = [
        Path(__file__).parents[1],
        sys.prefix,
        sys.base_prefix,
        *(set(sys.path) - {"", os.getcwd()}),
    ]
    readable: set[str | Path] = {*SYSTEM, *code, *roots}
    for place in readable:
        _allow(libc, ruleset, Path(place), READ & rights)
    gpu = [*Path("/dev").glob("nvidia*"), Path("/dev/dri"), Path("/dev/kfd")]
    for path in {*(Path(name) for name in DEVICES), Path(tempfile.gettempdir()), *gpu}:
        _allow(libc, ruleset, path, rights)
    _checked(libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    _checked(libc.syscall(RESTRICT_SELF, ruleset, 0))
    os.close(ruleset)
    return True


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # what is not on this machine need not be allowed
        return
    rule = _Beneath(rights if path.is_dir() else rights & FILE_RIGHTS, place)
    _checked(libc.syscall(ADD_RULE, ruleset, 1, ctypes.byref(rule), 0))
    os.close(place)


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
