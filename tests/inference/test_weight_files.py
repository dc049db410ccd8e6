"""Weights of metrics are found in torch's cache, or downloaded, or the metric is left out with a sentence."""

import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from inference.evaluation.metrics.loading import WITH_WEIGHTS, load_metrics
from inference.evaluation.metrics.perceptual_distance import NETWORKS
from inference.evaluation.metrics.weight_files import Release, UnavailableMetric, find_weights, package_folder
from inference.evaluation.metrics.weights import MetricWeights

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture
def server(tmp_path):
    """The address of a server of files, and their folder."""
    (tmp_path / "served").mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path / "served")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", tmp_path / "served"
        running.shutdown()


def test_metrics_without_weights_are_named_with_their_option():
    names = [*WITH_WEIGHTS, "psnr_db"]
    loaded = load_metrics(names, MetricWeights(clip="", download=False), CPU)
    assert [one.name for one in loaded.picture_metrics] == ["psnr_db"] and not loaded.set_metrics
    for name, sentence in zip(WITH_WEIGHTS, loaded.missing, strict=True):
        assert sentence.startswith(f"{name}: ") and "weights." in sentence and "=" in sentence


def test_weights_are_found_in_the_cache_of_torch(cache):
    build, release = NETWORKS["squeeze"]
    cache.mkdir(parents=True)
    torch.save(build().state_dict(), cache / release.file)
    loaded = load_metrics(["lpips_squeeze"], MetricWeights(download=False), CPU)
    assert [one.name for one in loaded.picture_metrics] == ["lpips_squeeze"]


def test_weights_are_downloaded_once_and_their_hash_is_checked(server, cache):
    address, folder = server
    contents = b"weights"
    good = f"net-{hashlib.sha256(contents).hexdigest()[:8]}.pth"
    for name in (good, "net-00000000.pth"):
        (folder / name).write_bytes(contents)
    release = Release("weights.net", "net", f"{address}/{good}")
    assert find_weights(release, "", download=True).read_bytes() == contents
    (folder / good).unlink()
    assert find_weights(release, "", download=True) == cache / good
    for name in ("net-00000000.pth", "net-11111111.pth"):  # of other contents, and absent
        with pytest.raises(UnavailableMetric, match=f"{name} cannot be downloaded .* give weights.net="):
            find_weights(Release("weights.net", "net", f"{address}/{name}"), "", download=True)
    assert [path.name for path in cache.iterdir()] == [good]


def test_a_package_that_is_not_installed_is_named():
    with pytest.raises(UnavailableMetric, match=r"no_such_package is not installed; .*zero-1-to-3\[scores\]"):
        package_folder("no_such_package")
