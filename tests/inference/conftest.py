"""A small model of random weights that depends on the pose, and a picture."""

import numpy as np
import pytest
from PIL import Image

from inference.novel_view import NovelView
from inference.preprocess.framing import Prepared
from training.model.architecture import build
from training.model.checkpoints import checkpoint
from training.model.config import Architecture, ImageEncoderShape, UNetShape

SHAPE = Architecture(
    resolution=16,
    patch=2,
    unet=UNetShape(channels=[16, 32], attention=[False, True], layers=1, heads=2, groups=8),
    encoder=ImageEncoderShape(image_size=16, patch_size=8, width=16, layers=1, heads=2, projection=16),
)


@pytest.fixture(scope="package")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "model"
    model = build(SHAPE, seed=3)
    model.cc_projection.projection.weight.data[:, -4:] = 1.0
    checkpoint.save(model, folder)
    return folder


@pytest.fixture(scope="package")
def novel_view(folder):
    return NovelView.load(folder, "cpu")


@pytest.fixture(scope="package")
def front() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8))


@pytest.fixture(scope="package")
def prepared(front) -> Prepared:
    """The input of the model, without a cutout."""
    return Prepared(front, front)


@pytest.fixture
def picture(front, tmp_path):
    """A file of the picture whose alpha outlines the object."""
    alpha = Image.new("L", front.size, 0)
    alpha.paste(255, (3, 3, 13, 13))
    cut = front.copy()
    cut.putalpha(alpha)
    cut.save(tmp_path / "front.png")
    return tmp_path / "front.png"
