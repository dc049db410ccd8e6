"""Run the commands of the project in processes forked after the import of torch, which takes seconds."""

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
_fork_server: subprocess.Popen[str] | None = None


def command(*words: object, timeout: float = 600, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m words…` in the project folder and return its exit code and output.

    The process is forked from one that has imported libraries only, no module of the project.
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
    """Command running in the background, with the interface of `Popen`; stdout is a pipe, stderr a file."""

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


def _ask(**request: Any) -> Any:
    global _fork_server
    if _fork_server is None or _fork_server.poll() is not None:
        _fork_server = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("fork_server.py")],
            cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        atexit.register(_fork_server.kill)
    assert _fork_server.stdin and _fork_server.stdout
    _fork_server.stdin.write(json.dumps(request) + "\n")
    _fork_server.stdin.flush()
    return json.loads(_fork_server.stdout.readline())
