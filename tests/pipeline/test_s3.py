"""Commands and kills with an S3 endpoint on loopback."""

import importlib.util
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import fsspec
import numpy as np
import pytest
import trimesh

from conf.options import UserError
from pipeline.samples import read_samples
from pipeline.shards import find_manifests, read_manifests, write_shard
from pipeline.storage import locate
from tests.support.command import PROJECT, command
from tests.support.dots import write_dots
from tests.support.small_model import SMALL
from training.config import DataConfig, DataKind, EncodeConfig
from training.data.batches import training_batches
from training.data.encoding import plan_jobs
from training.data.latents import encode_shard, require_fitting
from training.data.sources import training_sources
from training.data.split import split
from training.model.architecture import build
from training.model.picture import Background

needs_blender = pytest.mark.skipif(not importlib.util.find_spec("bpy"), reason="needs Blender, the `render` extra")


@pytest.fixture(scope="module")
def bucket(s3):
    s3.mkdir("shards")
    return "shards"


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """Return the command under test without its output."""
    folder = tmp_path_factory.mktemp("objects")
    for i in range(6):
        trimesh.creation.box((1, 1 + i, 2)).export(folder / f"box{i}.glb")
    settings = ["renderer.resolution=32", "renderer.samples=2", "renderer.views=2", "objects_per_shard=2"]
    settings += ["wandb.mode=disabled"]
    return ["pipeline.render", "objects=folder", f"objects.path={folder}", "cluster.workers=2", *settings]


@pytest.fixture(scope="module")
def views(bucket, words):
    """Return the shards of a run that was killed after its first shard and repeated."""
    url = f"s3://{bucket}/views"
    driver = subprocess.Popen([sys.executable, "-m", *words, f"output={url}"], cwd=PROJECT, stderr=subprocess.DEVNULL)
    while not find_manifests(url, "views"):
        assert driver.poll() is None
        time.sleep(0.02)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    done = command(*words, f"output={url}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"views of 6 objects in {url}"
    return url


TABLES = {"plan.json", "progress.json", "objects.csv", "licenses.csv"}


@needs_blender
@pytest.mark.slow
def test_a_killed_run_on_s3_resumes_with_the_bytes_of_a_local_run(views, words, tmp_path):
    done = command(*words, f"output={tmp_path / 'views'}")
    assert done.returncode == 0, done.stderr
    local = {path.name: path.read_bytes() for path in (tmp_path / "views").glob("*.tar")}
    fs, root = locate(views)
    assert {Path(path).name: fs.cat_file(path) for path in fs.glob(f"{root}/*.tar")} == local
    names = {f"views-{i:06d}.{suffix}" for i in range(3) for suffix in ("tar", "json")}
    assert {Path(path).name for path in fs.ls(root, detail=False)} - {"index.html"} == {*TABLES, *names}


@needs_blender
def test_every_reader_reads_from_s3(views):
    verified = command("pipeline.verify", f"path={views}")
    assert verified.returncode == 0 and "0 of 3 shards damaged; 6 objects" in verified.stdout
    inspected = command("pipeline.inspect", f"path={views}")
    assert inspected.returncode == 0 and inspected.stdout.splitlines()[-1] == f"contact sheet: {views}/index.html"
    fs, path = locate(f"{views}/index.html")
    assert fs.cat_file(path).decode().count("data:image/webp;base64,") == 6 * 2
    config = DataConfig(path=views, batch_size=2, workers=2)  # loader workers are forks, with their own connections
    shards = split(training_sources(config), 0.0).training
    batch = next(iter(training_batches(config, shards, resolution=32, seed=0)))
    assert batch["target"].shape == (2, 3, 32, 32)


def test_views_are_encoded_and_both_are_streamed_from_s3(bucket):
    """Encode in this process; loader workers are forks with their own connections."""
    views, latents = f"s3://{bucket}/dots", f"s3://{bucket}/latents"
    write_dots(views, objects=4, per_shard=2)
    given = EncodeConfig(views, latents, model=SMALL, device="cpu")
    for job in plan_jobs(given, read_manifests(views, "views")):
        assert [record.status for record in encode_shard(job)] == ["ok", "ok"]
    require_fitting(latents, build(SMALL), Background.composite)
    batches = []
    for path, kind in ((views, DataKind.views), (latents, DataKind.latents)):
        config = DataConfig(path=path, kind=kind, batch_size=2, workers=2)
        shards = split(training_sources(config), 0.0).training
        batches.append(list(islice(training_batches(config, shards, resolution=16, seed=0), 6)))
    for online, cached in zip(*batches, strict=True):
        assert online["pose"].equal(cached["pose"]) and online["slot"].equal(cached["slot"])
    assert batches[0][0]["target"].shape == (2, 3, 16, 16) and batches[1][0]["target"].shape == (2, 24, 8, 8)


def test_a_multipart_upload_is_read_back_unchanged(bucket):
    """Parts have 50 MB; contents are noise, so that swapped parts are detected."""
    sample = {"noise.npy": np.random.default_rng(0).bytes(110 * 2**20)}
    write_shard(f"s3://{bucket}/large", "views-000000", [("noise", sample)], [])
    fs = fsspec.filesystem("s3")
    assert fs.info(f"{bucket}/large/views-000000.tar")["ETag"].strip('"').endswith("-3")
    assert dict(read_samples(f"s3://{bucket}/large", "views-000000")) == {"noise": sample}


def test_files_written_by_another_process_are_listed(bucket):
    url = f"s3://{bucket}/growing"
    write_shard(url, "views-000000", [], [])
    assert len(find_manifests(url, "views")) == 1
    script = f"from pipeline.shards import write_shard; write_shard({url!r}, 'views-000001', [], [])"
    subprocess.run([sys.executable, "-c", script], cwd=PROJECT, check=True)
    assert len(find_manifests(url, "views")) == 2


def test_a_missing_bucket_is_one_error_line_and_is_not_created(bucket, words):
    done = command(*words, "output=s3://mispelt/views")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: s3://mispelt/views/plan.json: The specified bucket does not exist")
    assert not fsspec.filesystem("s3").exists("mispelt")
    with pytest.raises(UserError, match="s3://mispelt/views: "):
        read_manifests("s3://mispelt/views", "views")


@pytest.mark.parametrize("entry", ["pipeline.render", "pipeline.verify"])
def test_missing_credentials_are_one_error_line(bucket, words, entry):
    without = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "true"}
    url = f"s3://{bucket}/views"
    asked = [*words, f"output={url}"] if entry == "pipeline.render" else [entry, f"path={url}"]
    done = command(*asked, **without)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {url}: Unable to locate credentials; ")
