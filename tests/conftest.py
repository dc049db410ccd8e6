"""What the tests share: the real assets, where they are at hand, and commands run as a user runs them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def scans() -> Path:
    """The folder of Google Scanned Objects that lies beside the project on the build machines."""
    folder = PROJECT.parent / "shared/assets/gso"
    if not folder.is_dir():
        pytest.skip(f"needs the scanned objects in {folder}")
    return folder


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
