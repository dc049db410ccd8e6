"""What all tests share: the real assets, where they are at hand."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def scans() -> Path:
    """The folder of Google Scanned Objects that lies beside the project on the build machines."""
    folder = Path(__file__).parents[2] / "shared/assets/gso"
    if not folder.is_dir():
        pytest.skip(f"needs the scanned objects in {folder}")
    return folder
