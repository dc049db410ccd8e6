"""A run resumes from its mirror on another machine; the mirror is an S3 endpoint on the loopback interface."""

import itertools
import json
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
import torch
from s3fs import S3FileSystem
from werkzeug.serving import make_server

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
    download(f"{bucket}/run/model/00000020", tmp_path / "fetched")
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


def test_an_interrupted_upload_leaves_the_earlier_copy_and_is_completed_later(bucket, folder, tmp_path):
    upload(folder, f"{bucket}/cut/best/00000005")
    (folder / "state/zeros").symlink_to("/proc/self/mem")  # the upload fails here: it cannot be read
    with pytest.raises(UserError):
        upload(folder, f"{bucket}/cut/best/00000010")
    assert uploaded(f"{bucket}/cut/best") == ["00000005"]
    (folder / "state/zeros").unlink()
    upload(folder, f"{bucket}/cut/best/00000010")
    download(f"{bucket}/cut/best/00000010", tmp_path / "got")
    assert (tmp_path / "got/state/weights").read_bytes() == b"12345"


def run(data: str, output: Path, mirror: str, *words: str, should_stop=lambda: False) -> None:
    words = (f"data.path={data}", f"output={output}", f"mirror={mirror}", "wandb.mode=disabled", *SMALL, *words)
    train_run(configured(*words), should_stop)


def test_a_resumed_run_uploads_nothing_again(s3, dots, tmp_path):
    """A versioned bucket keeps every upload and removal."""
    s3.mkdir("versioned")
    s3.call_s3("put_bucket_versioning", Bucket="versioned", VersioningConfiguration={"Status": "Enabled"})
    run(dots, tmp_path / "first", "s3://versioned/run", "trainer.max_steps=5", "trainer.keep=1")
    before = {path: s3.cat_file(path) for path in s3.find("versioned/run/best")}
    run(dots, tmp_path / "second", "s3://versioned/run", "trainer.max_steps=6", "trainer.keep=1")
    assert uploaded("s3://versioned/run/checkpoints") == ["00000006"]
    assert uploaded("s3://versioned/run/model") == ["00000006"]
    assert {path: s3.cat_file(path) for path in s3.find("versioned/run/best")} == before and before
    listed = s3.call_s3("list_object_versions", Bucket="versioned", Prefix="run/")
    versions = [version["Key"] for version in listed["Versions"] if "/0000" in version["Key"]]
    assert len(versions) == len(set(versions))
    # What is replaced is removed after its successor is complete.
    complete = {version["Key"]: version["LastModified"] for version in listed["Versions"]}
    for marker in listed["DeleteMarkers"]:
        kind = marker["Key"].split("/")[1]
        assert kind in ("checkpoints", "model") and marker["LastModified"] >= complete[f"run/{kind}/00000006.json"]
    assert not (tmp_path / "second/.upload").exists()


def test_an_upload_that_fails_in_training_is_repeated_after_the_next_save(s3, dots, tmp_path, caplog):
    def create_bucket_after_a_failure() -> bool:
        time.sleep(0.05)
        if "s3://late/run" in caplog.text and not s3.exists("late"):
            s3.mkdir("late")
        return False

    words = ("trainer.max_steps=20", "trainer.validate_every=0")
    run(dots, tmp_path / "run", "s3://late/run", *words, should_stop=create_bucket_after_a_failure)
    assert uploaded("s3://late/run/checkpoints")[-1] == "00000020" and uploaded("s3://late/run/model") == ["00000020"]
    with pytest.raises(UserError, match="s3://never/run"):
        run(dots, tmp_path / "other", "s3://never/run", "trainer.max_steps=1")


def test_training_goes_on_during_an_upload(dots, tmp_path, monkeypatch):
    """The endpoint stores nothing until step 12; validations and saves of steps 5 and 10 do not wait for it."""
    from moto.server import DomainDispatcherApplication, create_backend_app  # imported late: takes seconds

    stores, steps, moto = threading.Event(), itertools.count(1), DomainDispatcherApplication(create_backend_app)
    stores.set()

    def endpoint(environ, start_response):
        if environ["REQUEST_METHOD"] == "PUT" and not stores.wait(30):
            start_response("403 Forbidden", [])
            return []
        return moto(environ, start_response)

    def stop_storing() -> bool:
        step = next(steps)
        if step == 4:
            stores.clear()
        if step == 12:
            assert not s3.exists("slow/run/checkpoints")
            stores.set()
        return False

    server = make_server("127.0.0.1", 0, endpoint, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    S3FileSystem.clear_instance_cache()
    s3 = fsspec.filesystem("s3", skip_instance_cache=True)
    s3.mkdir("slow")
    started = time.monotonic()
    run(dots, tmp_path / "run", "s3://slow/run", "trainer.max_steps=15", should_stop=stop_storing)
    assert time.monotonic() - started < 30
    assert uploaded("s3://slow/run/checkpoints")[-1] == "00000015"
    server.shutdown()
    S3FileSystem.clear_instance_cache()


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
