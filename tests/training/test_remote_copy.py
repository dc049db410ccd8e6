"""A run resumes from its mirror on another machine; the mirror is an S3 endpoint on the loopback interface."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
import torch

from conf.options import UserError
from pipeline.storage import put_atomically
from tests.support.command import command
from tests.support.finetune import configured
from tests.support.small_run import SMALL, losses
from training.callbacks.remote_copy import download, restore, upload, uploaded
from training.model.checkpoints import checkpoint
from training.run_config import record_run, require_copy_of_run
from training.train import train as train_run


@pytest.fixture(scope="module")
def bucket(s3):
    s3.mkdir("runs")
    return "s3://runs"


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "step/state").mkdir(parents=True)
    (tmp_path / "step/state/weights").write_bytes(b"12345")
    (tmp_path / "step/saved.json").write_text("{}")
    return tmp_path / "step"


@pytest.mark.slow
def test_a_run_resumed_from_its_mirror_equals_an_uninterrupted_one(bucket, dots, tmp_path):
    words = ["training.finetune", f"data.path={dots}", *SMALL, f"mirror={bucket}/run", "trainer.log_every=1"]
    outputs = [tmp_path / name / "run" for name in ("first", "second", "whole")]
    begun = command(*words, f"output={outputs[0]}", "trainer.max_steps=12", "artifacts=all")
    assert begun.returncode == 0, begun.stderr
    assert uploaded(f"{bucket}/run/checkpoints") == ["00000010", "00000012"], "pruned there as here"
    shutil.rmtree(outputs[0].parent)
    ended = command(*words, f"output={outputs[1]}", "trainer.max_steps=20")
    assert ended.returncode == 0, ended.stderr
    assert "step 13/20" in ended.stdout and "step 12/20" not in ended.stdout
    whole = [word for word in words if not word.startswith("mirror=")]
    assert command(*whole, f"output={outputs[2]}", "trainer.max_steps=20").returncode == 0
    assert losses(outputs[1]) == losses(outputs[2]) and len(losses(outputs[1])) == 20
    one, two = (checkpoint.load(output / "model").state_dict() for output in outputs[1:])
    assert all(torch.equal(one[name], two[name]) for name in one)
    download(f"{bucket}/run/model", tmp_path / "fetched")
    assert torch.equal(
        checkpoint.load(tmp_path / "fetched").state_dict()["unet.conv_in.weight"], one["unet.conv_in.weight"]
    )


def test_incomplete_uploads_are_ignored(bucket, folder, tmp_path):
    upload(folder, f"{bucket}/half/checkpoints/00000005")
    fs = fsspec.filesystem("s3", skip_instance_cache=True)
    fs.pipe_file("runs/half/checkpoints/00000010/state/weights", b"123")  # killed here: its list was never written
    restore(tmp_path / "run", f"{bucket}/half")
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["00000005"]
    assert (tmp_path / "run/checkpoints/00000005/state/weights").read_bytes() == b"12345"
    (tmp_path / "run/checkpoints/00000007").mkdir()
    (tmp_path / "run/metrics.csv").write_text("mine")
    restore(tmp_path / "run", f"{bucket}/half")
    assert (tmp_path / "run/metrics.csv").read_text() == "mine", "what is newer here stays"


def test_an_upload_replaces_an_earlier_copy(bucket, folder, tmp_path):
    upload(folder, f"{bucket}/best")
    (folder / "saved.json").unlink()
    (folder / "state/weights").write_bytes(b"1")
    upload(folder, f"{bucket}/best")
    download(f"{bucket}/best", tmp_path / "got")
    assert [
        p.relative_to(tmp_path / "got").as_posix() for p in sorted((tmp_path / "got").rglob("*")) if p.is_file()
    ] == ["state/weights"]


@pytest.mark.parametrize(
    ("listed", "sentence"),
    [
        ({"state/weights": 4}, "state/weights: .*4 bytes"),
        ({"nothing": 1}, "nothing: .*1 bytes"),
        ({"../../outside": 5}, "json: ../../outside "),
        ({"/etc/outside": 5}, "json: /etc/outside "),
    ],
)
def test_listings_of_missing_or_outside_files_are_refused(listed, sentence, bucket, folder, tmp_path):
    upload(folder, f"{bucket}/odd")
    fsspec.filesystem("s3", skip_instance_cache=True).pipe_file("runs/odd.json", json.dumps(listed).encode())
    with pytest.raises(UserError, match=sentence):
        download(f"{bucket}/odd", tmp_path / "in/got")
    assert not (tmp_path / "in/got").exists()


def test_a_missing_bucket_is_refused(bucket, tmp_path):
    with pytest.raises(UserError, match="s3://missing/run.*bucket"):
        upload(tmp_path, "s3://missing/run")


def test_the_mirror_of_another_run_changes_neither(bucket, dots, tmp_path):
    words = [f"data.path={dots}", *SMALL, "wandb.mode=disabled"]
    first, second = (configured(*words, f"seed={seed}") for seed in (0, 1))
    (tmp_path / "first/model").mkdir(parents=True)
    record_run(tmp_path / "first", first)
    put_atomically(str(tmp_path / "first/training.yaml"), f"{bucket}/shared/training.yaml")
    require_copy_of_run(f"{bucket}/shared", first)
    require_copy_of_run(f"{bucket}/nothing", second)
    mirrored = replace(second, mirror=f"{bucket}/shared", output=str(tmp_path / "second"))
    with pytest.raises(UserError, match="seed=1: the run in s3://runs/shared has seed=0"):
        train_run(mirrored)
    assert not (tmp_path / "second").exists()
