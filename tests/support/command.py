"""Commands run as a user runs them, without the seconds in which each would import torch anew."""

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[2]
_nursery: subprocess.Popen[str] | None = None


def command(*words: object, timeout: float = 600, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m words…` in the project, as a user does, and return what it printed.

    It is a process of its own, forked from one that has imported the libraries and nothing of ours.
    """
    with tempfile.TemporaryDirectory() as folder:
        out, err = (Path(folder) / name for name in ("out", "err"))
        pid = _ask(words=[str(word) for word in words], env=_environment(env), out=str(out), err=str(err))
        code = _ask(pid=pid, timeout=timeout)
        if code is None:
            os.killpg(pid, signal.SIGKILL)
            _ask(pid=pid, timeout=60)
            raise subprocess.TimeoutExpired(words, timeout, out.read_text(), err.read_text())
        return subprocess.CompletedProcess(words, code, out.read_text(), err.read_text())


class Started:
    """A command that runs beside the test, with the interface of `Popen`; stdout is a pipe, stderr a file."""

    def __init__(self, *words: object, **env: str) -> None:
        self.returncode: int | None = None
        self._folder = tempfile.TemporaryDirectory()
        out, self._err = (Path(self._folder.name) / name for name in ("out", "err"))
        os.mkfifo(out)
        words = tuple(map(str, words))
        self.pid = _ask(words=words, env=_environment(env), out=str(out), err=str(self._err))
        self.stdout = out.open()

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = _ask(pid=self.pid, timeout=0)
        return self.returncode

    def wait(self, timeout: float = 600) -> int:
        if self.returncode is None:
            self.returncode = _ask(pid=self.pid, timeout=timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout)
        return self.returncode

    def communicate(self, timeout: float = 600) -> tuple[str, str]:
        out = self.stdout.read()
        self.wait(timeout)
        return out, self._err.read_text()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _environment(changes: dict[str, str]) -> dict[str, str]:
    return {**os.environ, "WANDB_MODE": "offline", **changes}


def _ask(**job: Any) -> Any:
    global _nursery
    if _nursery is None or _nursery.poll() is not None:
        _nursery = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("nursery.py")],
            cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        atexit.register(_nursery.kill)
    assert _nursery.stdin and _nursery.stdout
    _nursery.stdin.write(json.dumps(job) + "\n")
    _nursery.stdin.flush()
    return json.loads(_nursery.stdout.readline())
