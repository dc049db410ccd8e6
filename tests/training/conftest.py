"""A tiny model and a few dotted objects."""

import shutil
from pathlib import Path

import pytest

from tests.support.dots import write_dots
from tests.support.originals import TINY, State, convert, original_state, write_original
from tests.support.small_model import SMALL, random_pairs
from training.model.architecture import build
from training.model.zero123 import Pairs, Zero123


@pytest.fixture
def model() -> Zero123:
    return build(SMALL)


@pytest.fixture(scope="session")
def dots(tmp_path_factory) -> str:
    """Twelve objects in three shards."""
    root = tmp_path_factory.mktemp("dots")
    write_dots(root, objects=12)
    return str(root)


@pytest.fixture(scope="session")
def state() -> State:
    """The tensors of a checkpoint in the original's layout."""
    return original_state(TINY)


@pytest.fixture(scope="session")
def made(state, tmp_path_factory) -> Path:
    """A checkpoint in the original's layout, and the folder that `training.convert` makes of it."""
    root = tmp_path_factory.mktemp("made")
    convert(write_original(root / "105000.ckpt", state), root / "folder")
    return root


@pytest.fixture
def source(made, tmp_path) -> Path:
    return Path(shutil.copy(made / "105000.ckpt", tmp_path))


@pytest.fixture
def folder(made, tmp_path) -> Path:
    return Path(shutil.copytree(made / "folder", tmp_path / "folder"))


@pytest.fixture
def batch() -> Pairs:
    return random_pairs(3, 16)
