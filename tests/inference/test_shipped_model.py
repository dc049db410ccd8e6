"""The model that comes with the project: intact, small, refused where it is missing or damaged."""

import shutil

import pytest
import torch
from PIL import Image

from conf.options import UserError
from inference.novel_view import NovelView
from inference.shipped_model import FOLDER, read_card, shipped_model
from tests.support.command import command
from training.model.checkpoints import checkpoint

MAX_PARAMETERS, MAX_BYTES = 25e6, 50e6


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(FOLDER, tmp_path / "small")


def test_the_card_lists_every_file_of_weights():
    assert shipped_model() == FOLDER
    listed = {FOLDER / name for name in read_card(FOLDER)["sha256"]}
    assert set(FOLDER.rglob("*.safetensors")) | set(FOLDER.rglob("*.json")) == listed
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= MAX_BYTES
    assert sum(weight.numel() for weight in checkpoint.load(FOLDER).parameters()) <= MAX_PARAMETERS


@pytest.mark.parametrize("change", ["byte", "missing"])
def test_a_damaged_folder_is_refused(copy, change):
    weights = copy / "unet/diffusion_pytorch_model.safetensors"
    if change == "missing":
        weights.unlink()
    else:
        with weights.open("r+b") as file:
            file.seek(1_000_000)
            byte = file.read(1)
            file.seek(1_000_000)
            file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(UserError, match=str(weights)):
        shipped_model(copy)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="models/small"):
        shipped_model(tmp_path / "small")


def test_it_is_the_default(tmp_path):
    picture = Image.new("RGB", (64, 64), "white")
    picture.paste("red", (20, 20, 44, 44))
    picture.save(tmp_path / "square.png")
    words = [f"image={tmp_path}/square.png", "cutout=none", "orbit=2", "elevation=none", f"output={tmp_path}/views"]
    done = command("inference.sample", *words, "sampling.steps=2")
    assert done.returncode == 0, done.stderr
    default, named = NovelView.load(precision="float32"), NovelView.load(FOLDER, precision="float32")
    assert default.fingerprint == named.fingerprint
    assert all(torch.equal(a, b) for a, b in zip(default.model.parameters(), named.model.parameters(), strict=True))
