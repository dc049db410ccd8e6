"""Commands run as a user runs them."""

import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[1]


def command(*words: object, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m words…` in the project, as a user does, and return what it printed."""
    return subprocess.run(
        [sys.executable, "-m", *map(str, words)],
        cwd=PROJECT,
        env={**os.environ, "WANDB_MODE": "offline", **env},
        capture_output=True,
        text=True,
        timeout=600,
    )
