"""Commands run as a user runs them, without the seconds in which each would import torch anew."""

import atexit
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).parents[2]
_nursery: subprocess.Popen[str] | None = None


def command(*words: object, timeout: float = 600, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m words…` in the project, as a user does, and return what it printed.

    It is a process of its own, forked from one that has imported the libraries and nothing of ours.
    """
    global _nursery
    if _nursery is None or _nursery.poll() is not None:
        _nursery = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("nursery.py")],
            cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        atexit.register(_nursery.kill)
    assert _nursery.stdin and _nursery.stdout
    with tempfile.TemporaryDirectory() as folder:
        out, err = (Path(folder) / name for name in ("out", "err"))
        job = {
            "words": [str(word) for word in words],
            "env": {**os.environ, "WANDB_MODE": "offline", **env},
            "out": str(out),
            "err": str(err),
            "timeout": timeout,
        }
        _nursery.stdin.write(json.dumps(job) + "\n")
        _nursery.stdin.flush()
        code = json.loads(_nursery.stdout.readline())
        if code is None:
            raise subprocess.TimeoutExpired(job["words"], timeout, out.read_text(), err.read_text())
        return subprocess.CompletedProcess(job["words"], code, out.read_text(), err.read_text())
