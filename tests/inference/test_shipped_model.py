"""The model that comes with the project: small, the default, refused where it is missing."""

import pytest
import torch
import yaml
from PIL import Image

from conf.options import UserError
from inference.novel_view import NovelView
from inference.shipped_model import FOLDER, shipped_model
from tests.support.command import command
from training.model.checkpoints import checkpoint

MAX_PARAMETERS, MAX_BYTES = 25e6, 50e6


def test_the_folder_is_small_and_every_file_has_a_checksum():
    lines = (FOLDER / "SHA256SUMS").read_text().splitlines()
    assert {FOLDER / line.split("  ")[1] for line in lines} == {
        path for path in FOLDER.glob("*/*") if path.is_file()
    } | {FOLDER / "model_index.json"}
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= MAX_BYTES
    assert sum(weight.numel() for weight in checkpoint.load(FOLDER).parameters()) <= MAX_PARAMETERS


def test_it_has_the_noise_schedule_that_model_small_continues_with():
    settings = yaml.safe_load((FOLDER.parents[1] / "conf/training/model/small.yaml").read_text())
    schedule = checkpoint.load(FOLDER).scheduler.config
    assert (schedule["beta_end"], schedule["prediction_type"]) == (settings["beta_end"], settings["prediction"])


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
