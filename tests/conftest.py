"""What all tests share: the real assets, where they are at hand."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def scans() -> Path:
    """The folder of Google Scanned Objects that lies beside the project on the build machines."""
    folder = Path(__file__).parents[2] / "shared/assets/gso"
    if not folder.is_dir():
        pytest.skip(f"needs the scanned objects in {folder}")
    return folder


@pytest.fixture(autouse=True, scope="module")
def no_shared_wandb() -> Iterator[None]:
    """W&B's service of this process would otherwise be that of every command that a later test starts."""
    yield
    if "WANDB_SERVICE" in os.environ:
        import wandb

        wandb.teardown()
        os.environ.pop("WANDB_SERVICE", None)
