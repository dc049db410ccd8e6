"""The fingerprint of a model, and weights that are not finite."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from conf.options import UserError
from tests.support.originals import State, convert, write_original
from training.model.architecture import build, build_encoders
from training.model.checkpoints import checkpoint
from training.model.checkpoints import ldm_names as original
from training.model.checkpoints.fingerprint import fingerprint
from training.model.checkpoints.ldm_export import save_threestudio
from training.model.checkpoints.pretrained import load_posed
from training.model.config import Architecture
from training.model.hardware.precision import Precision

UNET = original.ema_name(original.UNET + "middle_block.0.in_layers.2.weight")


def test_fingerprint_depends_on_every_element(model):
    before = fingerprint(model)
    for name, weight in model.state_dict().items():
        number = weight.flatten()[-1].item()
        weight.view(-1)[-1] += 1
        assert fingerprint(model) != before, name
        weight.view(-1)[-1] = number
    assert fingerprint(model) == before
    weight = model.unet.mid_block.resnets[0].conv1.weight.data
    for changed in (-weight, weight.flip(0)):  # opposite signs, or another order
        kept = weight.clone()
        weight.copy_(changed)
        assert fingerprint(model) != before
        weight.copy_(kept)


def test_fingerprint_depends_on_settings(model):
    before = fingerprint(model)
    model.unet.register_to_config(attention_head_dim=4)
    assert fingerprint(model) != before


def test_copying_or_touching_a_checkpoint_keeps_the_fingerprint(model, tmp_path):
    folder = tmp_path / "model"
    checkpoint.save(model, folder)
    copied = shutil.copytree(folder, tmp_path / "elsewhere/copy")
    for path in copied.rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o555 if path.is_dir() else 0o444)
    assert fingerprint(load_posed(copied)) == fingerprint(load_posed(folder)) == fingerprint(model.eval())
    compiled = load_posed(folder)
    compiled.unet.to(memory_format=torch.channels_last)
    assert fingerprint(compiled) == fingerprint(model)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("part", ["unet", "vae", "image_encoder", "cc_projection"])
def test_a_folder_with_a_weight_that_is_not_finite_is_refused(folder, part, number):
    (path,) = (folder / part).glob("*.safetensors")
    tensors = load_file(path)
    name = sorted(tensors)[len(tensors) // 2]
    tensors[name].view(-1)[-1] = number
    save_file(tensors, path, metadata={"format": "pt"})
    assert_refused(folder, name)
    if part in ("vae", "image_encoder"):
        with pytest.raises(UserError, match=name):
            build_encoders(Architecture(pretrained=str(folder)))


def test_a_file_with_a_weight_that_is_not_finite_is_refused(state, tmp_path):
    for name in (UNET, "first_stage_model.decoder.conv_out.bias", "cc_projection.weight"):
        broken: State = {**state, name: state[name].clone()}
        broken[name].view(-1)[-1] = float("nan")
        assert_refused(write_original(tmp_path / "model.ckpt", broken), name)


def test_a_threestudio_folder_with_a_weight_that_is_not_finite_is_refused(folder, tmp_path):
    model = load_posed(folder)
    model.cc_projection.projection.bias.data[5] = float("inf")
    save_threestudio(model, tmp_path / "threestudio")
    assert_refused(tmp_path / "threestudio", "proj.bias")


def assert_refused(source: Path, name: str) -> None:
    """Every function that loads a checkpoint refuses it."""
    for load in (
        load_posed,
        lambda path: convert(path, path.with_name("target")),
        lambda path: build(Architecture(pretrained=str(path))),
    ):
        with pytest.raises(UserError, match="not finite") as caught:
            load(source)
        assert name in str(caught.value) and str(source) in str(caught.value)
    assert not source.with_name("target").exists()


def test_weights_that_overflow_float16_are_not_written(folder, tmp_path):
    model = load_posed(folder)
    model.unet.conv_out.weight.data.view(-1)[0] = 1e6
    checkpoint.save(model, tmp_path / "large")
    with pytest.raises(UserError, match=r"dtype=float16.*unet.conv_out.weight"):
        convert(tmp_path / "large", tmp_path / "half", dtype=Precision.float16)
    assert not (tmp_path / "half").exists()
