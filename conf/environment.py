"""Choose writable folders for the sockets, caches and settings of the libraries that a command uses."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from conf.options import UserError

# A Unix socket's path has 107 bytes at most. Ray's is the longest: <folder>/ray/session_<26>_<7>/sockets/plasma_store
MAX_TEMPORARY = 107 - len("/ray/session_2026-11-26_14-54-05_171273_1234567/sockets/plasma_store")
SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")
# Caches and settings that libraries keep in the home folder, or fail. Credentials and models are left where they are.
CACHES = ("MPLCONFIGDIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR", "TRITON_HOME")


def prepare_environment() -> None:
    """Set a short temporary folder and writable cache folders for this process and its child processes.

    Raises:
        UserError: No such folder exists; the message names the variable to set.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        raise UserError("TMPDIR: no folder for temporary files can be written to; set TMPDIR to one") from None
    for name in ("TMPDIR", "RAY_TMPDIR"):
        if len(os.fsencode(os.environ.get(name, ""))) > MAX_TEMPORARY:
            os.environ[name] = _short(name)
    tempfile.tempdir = None  # found anew, in TMPDIR
    _provide_caches()


def _short(name: str) -> str:
    """Return a short link to the folder that the variable names, for as long as this process lives."""
    folder = os.environ[name]
    for parent in SHORT_FOLDERS:
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            holder = tempfile.mkdtemp(prefix="t", dir=parent)
            link = Path(holder) / "t"
            link.symlink_to(Path(folder).absolute())
        except OSError:
            continue
        remove_at_end(holder)
        return str(link)
    raise UserError(
        f"{name}={folder}: sockets need a path of {MAX_TEMPORARY} bytes at most; set {name} to a shorter one"
    )


def _provide_caches() -> None:
    """Set a temporary folder for the caches and settings of libraries if the home folder is not writable."""
    home = Path("~").expanduser()
    if home.is_absolute():
        os.environ.setdefault("HOME", str(home))
    if home.is_dir() and os.access(home, os.W_OK | os.X_OK):
        return
    missing = [name for name in CACHES if name not in os.environ]
    if not (home / ".cache").is_dir() and "XDG_CACHE_HOME" not in os.environ:
        missing.append("XDG_CACHE_HOME")  # nothing is hidden by that
    if missing:
        folder = tempfile.mkdtemp(prefix="home-")
        remove_at_end(folder)
        os.environ.update(dict.fromkeys(missing, folder))


def remove_at_end(folder: str) -> None:
    """Remove `folder` when this process ends; a process forked from it leaves it alone."""
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
