"""Downloads with faults of the server, and the cache that several processes share."""

import os
import random
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from pipeline.plan import ShardJob
from pipeline.shard_job import fetch_ahead
from pipeline.sources.cache import make_room, take
from pipeline.sources.download import Transport, download
from pipeline.sources.objaverse import ObjaverseObjects
from pipeline.sources.source import Asset
from rendering.failure import RenderFailure
from rendering.limits import Limits
from rendering.settings import RenderSettings
from tests.support.command import PROJECT
from tests.support.objaverse_hub import DATASET, Hub, serving

CONTENTS = random.Random(0).randbytes(300_000)
FAST = Transport(retries=3, backoff=0.01, timeout=10, deadline=60)
IMPATIENT = replace(FAST, timeout=1)  # than the two seconds of a stall


@pytest.fixture
def hub():
    with serving(Hub({"a.glb": CONTENTS})) as hub:
        yield hub


def fetch(hub, folder, transport=FAST):
    return download(f"{hub.url}{DATASET}a.glb", folder / "a.glb", transport)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_download_leaves_only_the_complete_file(hub, tmp_path):
    assert fetch(hub, tmp_path) == len(CONTENTS)
    assert (tmp_path / "a.glb").read_bytes() == CONTENTS and names(tmp_path) == ["a.glb"]


@pytest.mark.parametrize(
    ("faults", "requests"),
    [([503], 2), ([500, 502, 504], 4), ([(429, "0")], 2), (["wrong"], 2), (["truncate"], 2), (["stall"], 2)],
)
def test_transient_failures_are_retried(hub, tmp_path, faults, requests):
    hub.faults["a.glb"] = faults
    fetch(hub, tmp_path, IMPATIENT if "stall" in faults else FAST)
    assert (tmp_path / "a.glb").read_bytes() == CONTENTS and names(tmp_path) == ["a.glb"]
    assert len(hub.requests("a.glb")) == requests


def test_the_wait_of_retry_after_is_kept(hub, tmp_path):
    hub.faults["a.glb"] = [(429, "1")]
    fetch(hub, tmp_path)
    first, second = hub.times
    assert 1 <= second - first < 10


@pytest.mark.parametrize("fault", ["truncate", "stall"])
def test_an_interrupted_body_is_resumed_at_its_last_byte(hub, tmp_path, fault):
    hub.faults["a.glb"] = [fault, fault]
    fetch(hub, tmp_path, IMPATIENT if fault == "stall" else FAST)
    first, second, third = hub.requests("a.glb")
    assert first == ("", "")
    assert second[0] == "bytes=150000-" and second[1].startswith('"')
    assert third[0] == "bytes=225000-"
    assert (tmp_path / "a.glb").read_bytes() == CONTENTS


@pytest.mark.parametrize("without", ["ranges", "etags", "sha256"])
def test_a_server_without_ranges_etags_or_hashes_is_supported(hub, tmp_path, without):
    setattr(hub, without, False)
    hub.faults["a.glb"] = ["truncate"]
    fetch(hub, tmp_path)
    assert (tmp_path / "a.glb").read_bytes() == CONTENTS


def test_a_partial_file_is_not_resumed_without_an_etag_or_hash(hub, tmp_path):
    hub.etags = hub.sha256 = False
    hub.faults["a.glb"] = ["truncate"]
    fetch(hub, tmp_path)
    assert [span for span, _ in hub.requests("a.glb")] == ["", "bytes=150000-", ""]
    assert (tmp_path / "a.glb").read_bytes() == CONTENTS


def test_a_file_that_changes_on_the_server_is_downloaded_from_the_start(hub, tmp_path):
    hub.sha256 = False  # leaves the ETag to detect the change
    hub.faults["a.glb"] = ["truncate", (503, "1")]

    def change(*_):
        time.sleep(0.5)
        hub.files["a.glb"] = CONTENTS[::-1]

    threading.Thread(target=change).start()
    fetch(hub, tmp_path)
    assert (tmp_path / "a.glb").read_bytes() == CONTENTS[::-1]


def test_the_next_run_resumes_a_killed_download(hub, tmp_path):
    (tmp_path / "a.glb.part").write_bytes(CONTENTS[:1000])
    fetch(hub, tmp_path)
    assert [span for span, _ in hub.requests("a.glb")] == ["bytes=1000-"]
    assert (tmp_path / "a.glb").read_bytes() == CONTENTS


@pytest.mark.parametrize("left", [b"\0" * 1000, CONTENTS + b"more"])
def test_an_invalid_partial_file_is_replaced(hub, tmp_path, left):
    (tmp_path / "a.glb.part").write_bytes(left)
    fetch(hub, tmp_path)
    assert (tmp_path / "a.glb").read_bytes() == CONTENTS


@pytest.mark.parametrize(
    ("faults", "requests", "sentence"),
    [
        ([503] * 9, 4, "503 Service Unavailable.*4 attempts"),
        (["wrong"] * 9, 4, "sha256.*4 attempts"),
        (["stall"] * 9, 4, "timed out"),
        (["truncate"] * 9, 4, "the connection ended|IncompleteRead|bytes read"),
        ([404], 1, "404"),
        ([403], 1, "403"),
        ([(429, "1000")], 1, "429.* 60 s"),
    ],
)
def test_a_persistent_failure_has_the_reason_download_and_leaves_no_file(hub, tmp_path, faults, requests, sentence):
    hub.faults["a.glb"] = faults
    with pytest.raises(RenderFailure, match=sentence) as caught:
        fetch(hub, tmp_path, IMPATIENT if "stall" in faults else FAST)
    assert caught.value.reason == "download" and "/a.glb" in caught.value.detail
    assert len(hub.requests("a.glb")) == requests and names(tmp_path) == []


def test_a_slow_body_fails_at_the_deadline(hub, tmp_path):
    hub.faults["a.glb"] = ["trickle"]
    start = time.monotonic()
    with pytest.raises(RenderFailure, match=" 1 s"):
        fetch(hub, tmp_path, replace(FAST, deadline=1))
    assert time.monotonic() - start < 10 and names(tmp_path) == []


def test_a_body_above_max_bytes_is_refused(hub, tmp_path):
    with pytest.raises(RenderFailure, match="100,000 bytes"):
        fetch(hub, tmp_path, Transport(max_bytes=100_000))
    assert names(tmp_path) == []


def test_an_unreachable_server_has_the_reason_download(tmp_path):
    with pytest.raises(RenderFailure, match="refused"):
        download("http://127.0.0.1:9/a.glb", tmp_path / "a.glb", FAST)


def test_the_random_waits_do_not_use_the_seed_of_the_process(hub, tmp_path):
    hub.faults["a.glb"] = [503, 503]
    random.seed(5)
    state = random.getstate()
    fetch(hub, tmp_path)
    assert random.getstate() == state


FETCH = """
import sys
from pathlib import Path
from pipeline.sources.download import download
print(download(sys.argv[1], Path(sys.argv[2])))
"""


def test_concurrent_processes_download_a_file_once(hub, tmp_path):
    hub.delay = 1.5
    words = [sys.executable, "-c", FETCH, f"{hub.url}{DATASET}a.glb", tmp_path / "a.glb"]
    env = {**os.environ, "PYTHONPATH": str(PROJECT)}
    both = [subprocess.Popen(words, env=env, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    brought = sorted(int(process.communicate(timeout=60)[0]) for process in both)
    assert brought == [0, 0, len(CONTENTS)] and len(hub.requests("a.glb")) == 1
    assert (tmp_path / "a.glb").read_bytes() == CONTENTS and names(tmp_path) == ["a.glb"]


def put(root, name, size, age):
    path = root / "glbs/000-000" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    os.utime(path, (time.time() - age,) * 2)
    make_room(root, size, 1000)


def cached(root):
    return sorted(path.name for path in root.glob("glbs/*/*"))


def test_the_least_recently_used_files_are_evicted(tmp_path):
    cache, scratch = tmp_path / "cache", tmp_path / "scratch"
    scratch.mkdir()
    for i in range(3):
        put(cache, f"{i}.glb", 300, age=100 - i)
    assert cached(cache) == ["0.glb", "1.glb", "2.glb"]
    taken = take(cache / "glbs/000-000/0.glb", scratch)  # used now
    put(cache, "3.glb", 300, age=0)
    assert cached(cache) == ["0.glb", "2.glb", "3.glb"]
    put(cache, "4.glb", 1200, age=-5)
    assert cached(cache) == []  # the newest file exceeds the capacity by itself
    assert taken.read_bytes() == b"x" * 300  # a taken file survives eviction


def test_only_abandoned_partial_files_are_removed(tmp_path):
    put(tmp_path, "now.glb.part", 800, age=0)
    put(tmp_path, "old.glb.part", 800, age=7200)
    put(tmp_path, "a.glb", 400, age=10)
    assert cached(tmp_path) == ["a.glb", "now.glb.part"]


def test_a_file_is_copied_where_hard_links_are_not_supported(tmp_path, monkeypatch):
    path = tmp_path / "a.glb"
    path.write_bytes(b"chair")
    (tmp_path / "out").mkdir()

    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)  # as such a file system does
    assert take(path, tmp_path / "out").read_bytes() == b"chair"
    with pytest.raises(FileNotFoundError):
        take(tmp_path / "b.glb", tmp_path / "out")


MANY = """
import sys
from pathlib import Path
from pipeline.sources.objaverse import ObjaverseObjects
from pipeline.sources.source import Asset
root, url, first = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
source = ObjaverseObjects(cache=str(root), endpoint=url, cache_gigabytes=35e-6)
for i in range(first, first + 40):
    name = f"{i % 50}"
    folder = root / f"scratch-{first}" / str(i)
    folder.mkdir(parents=True)
    path = source.fetch(Asset(name, f"glbs/000-000/{name}.glb"), folder, None)
    assert path.read_bytes() == name.encode() * (10000 // len(name)), name
"""


def test_concurrent_processes_read_complete_files_from_a_full_cache(hub, tmp_path):
    hub.files |= {f"glbs/000-000/{i}.glb": str(i).encode() * (10000 // len(str(i))) for i in range(50)}
    env = {**os.environ, "PYTHONPATH": str(PROJECT)}
    words = [sys.executable, "-c", MANY, str(tmp_path), hub.url]
    both = [subprocess.Popen([*words, first], env=env, stderr=subprocess.PIPE) for first in ("0", "20")]
    assert [(p.communicate(timeout=100)[1], p.returncode) for p in both] == [(b"", 0)] * 2
    files = list((tmp_path / "rendered").rglob("*.glb*"))
    assert sum(path.stat().st_size for path in files) <= 35_000 and not [p for p in files if p.suffix == ".part"]
    assert int((tmp_path / "rendered/bytes").read_text()) == sum(path.stat().st_size for path in files)


def test_downloads_run_ahead_of_the_renderer_and_fail_separately(hub, tmp_path):
    assets = [Asset(f"{i}", f"glbs/000-000/{i}.glb") for i in range(24)]
    hub.files |= {asset.origin: asset.uid.encode() * 1000 for asset in assets if asset.uid != "2"}
    hub.faults[assets[4].origin] = ["wrong"] * 9
    hub.delay = 0.3
    source = ObjaverseObjects(endpoint=hub.url, cache=str(tmp_path / "cache"), retries=2, backoff=0.01)
    job = ShardJob("", "", (), source, RenderSettings(), Limits(), 0)
    outcomes, start = [], time.monotonic()
    for i, fetched in enumerate(fetch_ahead(job, assets, tmp_path)):
        try:
            outcomes.append(fetched().read_bytes())
        except RenderFailure as failure:
            outcomes.append(failure.reason)
        if i == 0:
            while len({path for path, *_ in hub.requested}) < 8:  # this one and the next eight, one of which is missing
                assert time.monotonic() < start + 60, "nothing is fetched ahead"
                time.sleep(0.01)
        time.sleep(0.1)  # in place of rendering
    seconds = time.monotonic() - start
    expected = [hub.files.get(asset.origin, "download") for asset in assets]
    expected[4] = "download"
    assert outcomes == expected
    assert seconds < 24 * (0.1 + 0.3), "they waited for each other"
