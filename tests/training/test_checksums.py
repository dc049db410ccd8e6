"""Checkpoint folders with SHA256SUMS, as sha256sum writes them."""

import subprocess

import pytest

from conf.options import UserError
from training.model.architecture import Architecture, build
from training.model.checkpoints import checkpoint, pretrained
from training.model.zero123 import Zero123

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def build_from(folder) -> Zero123:
    return build(Architecture(resolution=16, patch=2, pretrained=str(folder)))


@pytest.fixture
def summed(model, tmp_path):
    folder = tmp_path / "model"
    checkpoint.save(model, folder)
    subprocess.run(
        "find . -type f -printf '%P\\n' | xargs sha256sum > ../sums; mv ../sums SHA256SUMS", shell=True, cwd=folder
    )
    return folder


def flip_a_bit_of_a_weight(folder):
    contents = bytearray((folder / WEIGHTS).read_bytes())
    contents[-10] ^= 1
    (folder / WEIGHTS).write_bytes(contents)


@pytest.mark.parametrize("read", [checkpoint.load, pretrained.load_posed, build_from])
def test_every_reader_refuses_a_damaged_folder(summed, read):
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=summed, check=True)
    read(summed)
    flip_a_bit_of_a_weight(summed)
    with pytest.raises(UserError, match=WEIGHTS):
        read(summed)
    (summed / "SHA256SUMS").unlink()
    read(summed)  # nothing else would notice


def test_a_missing_file_is_refused(summed):
    (summed / "feature_extractor/preprocessor_config.json").unlink()
    with pytest.raises(UserError, match="preprocessor_config"):
        checkpoint.load(summed)


@pytest.mark.parametrize("name", ["/etc/hostname", "../outside", "unet/../../outside"])
def test_names_outside_the_folder_are_not_read(summed, name):
    (summed.parent / "outside").write_text("x")
    (summed / "SHA256SUMS").write_text(f"{64 * '0'}  {name}\n")
    with pytest.raises(UserError, match="not the checksum of a file in this folder"):
        checkpoint.load(summed)


def test_a_file_that_is_no_list_of_checksums_is_refused(summed):
    (summed / "SHA256SUMS").write_bytes(b"\xff\x00 checksums")
    with pytest.raises(UserError, match="SHA256SUMS"):
        checkpoint.load(summed)
