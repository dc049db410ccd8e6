"""A tiny model and a few dotted objects."""

import shutil
from pathlib import Path

import pytest
import torch

from tests.training.dots import write_dots
from tests.training.originals import TINY, State, convert, original_state, write_original
from training.model.architecture import Architecture, ImageEncoderShape, UNetShape, build
from training.model.zero123 import Pairs, Zero123

SMALL = Architecture(
    resolution=16,
    patch=2,
    unet=UNetShape(channels=[16, 32], attention=[False, True], layers=1, heads=2, groups=8),
    encoder=ImageEncoderShape(image_size=16, patch_size=8, width=16, layers=1, heads=2, projection=16),
)


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
    """Such a checkpoint, and what `training.convert` makes of it."""
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


def random_pairs(size: int, resolution: int) -> Pairs:
    g = torch.Generator().manual_seed(7)
    pictures = torch.rand(2, size, 3, resolution, resolution, generator=g) * 2 - 1
    return {"target": pictures[0], "condition": pictures[1], "pose": torch.randn(size, 4, generator=g)}
