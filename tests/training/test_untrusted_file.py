"""Untrusted files are read without executing anything, or refused with one sentence."""

import os
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.support.originals import assert_same, averaged, convert, refusal, weights, write_original
from training.model.checkpoints.untrusted_file import read_weights

UNET, CLIP = "model.diffusion_model.", "cond_stage_model.model.visual."


def test_other_objects_in_lightning_checkpoints_are_ignored(state, tmp_path, monkeypatch):
    """Checkpoints of Lightning 1.4 hold a class as a key, numpy scalars in schedulers, and optimiser states."""
    name = "pytorch_lightning.callbacks.model_checkpoint"
    module = types.ModuleType(name)
    module.ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": name})
    monkeypatch.setitem(sys.modules, name, module)
    besides = {
        "epoch": 3,
        "pytorch-lightning_version": "1.4.2",
        "callbacks": {module.ModelCheckpoint: {"monitor": "val/loss", "best_model_score": torch.tensor(0.1)}},
        "optimizer_states": [{"state": {0: {"step": 5, "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-4}]}],
        "lr_schedulers": [{"base_lrs": [1e-4], "_last_lr": [np.float64(1e-4)], "lr_lambdas": [{}]}],
    }
    file = write_original(tmp_path / "105000.ckpt", state, **besides)
    monkeypatch.delitem(sys.modules, name)
    assert_same(weights(convert(file, tmp_path / "folder")), averaged(state))


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("where", ["file", "folder"])
def test_a_pickle_that_would_execute_something_is_refused(state, folder, tmp_path, where):
    evil = {**state, "betas": Evil(tmp_path / "executed")}
    file = write_original(tmp_path / "evil.ckpt", evil)
    if where == "folder":
        next((folder / "unet").glob("*.safetensors")).unlink()
        file = file.rename(folder / "unet/diffusion_pytorch_model.bin")
    sentence = refusal(folder if where == "folder" else file)
    assert sentence == (
        f"{file} holds more than weights: posix.mkdir would be executed, which is refused; "
        "ask its author for safetensors"
    )
    assert not (tmp_path / "executed").exists()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5000])


def compressed(path: Path) -> None:
    with zipfile.ZipFile(path) as before:
        contents = {name: before.read(name) for name in before.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as after:
        for name, content in contents.items():
            after.writestr(name, content)


def old_format(path: Path) -> None:
    torch.save({"state_dict": {}}, path, _use_new_zipfile_serialization=False)


def another_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "hello")


def repeated(path: Path) -> None:
    torch.save({"betas": torch.zeros(1).expand(1 << 40)}, path)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (cut, "is cut off or damaged"),
        (compressed, "is no file of torch.save: it is compressed"),
        (old_format, "was written by a torch older than 1.6"),
        (another_zip, "is no checkpoint of torch"),
        (repeated, "its tensor betas has more elements than the file holds"),
        (lambda path: path.write_text("<!DOCTYPE html><html>"), "is a web page, not a checkpoint; download it again"),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid"), "is a Git LFS pointer"),
        (lambda path: path.write_bytes(b""), "is no checkpoint, or cut off"),
        (lambda path: path.write_bytes(bytes(range(256))), "is no checkpoint, or cut off"),
        (lambda path: torch.save([1], path), "holds a list, not the weights of a model"),
        (lambda path: torch.save({"state_dict": [5]}, path), "holds a list, not the weights of a model"),
        (lambda path: torch.save({"betas": 5}, path), "betas is a int, where a tensor of weights was expected"),
        (lambda path: torch.save({}, path), "is incomplete: its tensor input_blocks.0.0.weight is missing"),
    ],
)
def test_files_that_are_not_checkpoints_are_refused(source, damage, sentence):
    damage(source)
    message = refusal(source)
    assert message.startswith(str(source)) and sentence in message


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"control_model.zero.weight": torch.zeros(1)}, "its tensor control_model.zero.weight is unknown"),
        ({"model_ema.diffusion_modelout2bias": None}, "its tensor model_ema.diffusion_modelout2bias is missing"),
        ({"first_stage_model.quant_conv.bias": None}, "its tensor first_stage_model.quant_conv.bias is missing"),
        ({"cc_projection.bias": torch.zeros(15)}, "cc_projection.bias has the shape [15], where [16] would fit"),
        ({"cc_projection.bias": torch.zeros(16, dtype=torch.int64)}, "cc_projection.bias has dtype int64"),
        ({"cc_projection.weight": torch.zeros(5)}, "cc_projection.weight has shape [5], not 2 dimensions"),
        ({f"{UNET}input_blocks.0.0.weight": torch.zeros(5)}, "has shape [5], not 4 dimensions"),
        ({f"{UNET}out.2.weight": torch.zeros(())}, "has shape [], not 4 dimensions"),
        ({f"{UNET}input_blocks.1.0.out_layers.3.weight": torch.zeros(7, 7, 3, 3)}, "no model has the shapes"),
        ({f"{CLIP}conv1.weight": torch.zeros(0, 3, 0, 0)}, "has shape [0, 3, 0, 0], not 4 dimensions"),
        ({f"{CLIP}proj": torch.zeros(3)}, "proj has shape [3], not 2 dimensions"),
        (
            {"cc_projection.weight": torch.zeros(16, 19)},
            "its cc_projection fits neither its image_encoder nor its unet",
        ),
    ],
)
def test_missing_unknown_and_misshapen_tensors_are_refused(state, tmp_path, change, sentence):
    changed = {name: tensor for name, tensor in (state | change).items() if tensor is not None}
    assert sentence in refusal(write_original(tmp_path / "odd.ckpt", changed))


def test_names_that_claim_a_huge_model_take_no_memory(state, tmp_path):
    """Names claim layers of 16 GB each in a file of some megabytes; their weights are then missing."""
    change = {f"{CLIP}conv1.weight": torch.zeros(1 << 14, 3, 1, 1), f"{CLIP}positional_embedding": torch.zeros(5, 1)}
    change |= {f"{CLIP}transformer.resblocks.{i}.ln_1.weight": torch.zeros(1) for i in range(1, 100)}
    change |= {f"{CLIP}transformer.resblocks.0.mlp.c_fc.weight": torch.zeros(1 << 18, 1)}
    message = refusal(write_original(tmp_path / "huge.ckpt", state | change))
    assert "has the shape" in message or "is missing" in message


def test_notes_and_names_are_validated(state, tmp_path):
    assert "'foo' is not a valid PoseVector" in refusal(write_original(tmp_path / "a.ckpt", state, pose_vector="foo"))
    torch.save({"state_dict": {1: torch.zeros(1)}}, tmp_path / "b.ckpt")
    assert "1 is not a name of a tensor" in refusal(tmp_path / "b.ckpt")


def test_a_missing_source_is_refused(tmp_path):
    assert refusal(tmp_path / "nowhere").startswith(f"there is no folder {tmp_path}/nowhere/unet and no file")


def test_any_safetensors_header_length_is_read(tmp_path):
    """The file begins with the length of its header, whose lowest byte may be that of a pickle: 0x80 of 384."""
    file = tmp_path / "model.safetensors"
    save_file({"betas": torch.ones(2)}, file, metadata={"filler": "x" * 292})
    assert file.read_bytes()[0] == 0x80
    assert read_weights(file)["betas"].tolist() == [1, 1]
