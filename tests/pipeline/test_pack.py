"""Conversion of the released renders to shards: exact pixels, interruptions and untrusted tars."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image

from conf.options import UserError
from pipeline import inspect
from pipeline.config import InspectConfig
from pipeline.samples import npy_array, npy_bytes, view_names
from pipeline.shards import find_manifests, read_manifests
from pipeline.zero123_release.object_conversion import shrink
from pipeline.zero123_release.release_layout import MAX_OBJECT_BYTES
from tests.support.command import PROJECT, command
from tests.support.dots import write_dots
from tests.support.released import (
    UIDS,
    export,
    failures,
    files_of,
    members,
    pack,
    pictures,
    png,
    samples,
    tars,
    write_folder,
    write_tar,
)


def test_pixels_and_cameras_equal_the_released_ones(released, shards):
    packed = samples(shards)
    assert list(packed) == UIDS
    for seed, (uid, sample) in enumerate(packed.items()):
        assert view_names(sample) == ["000.webp", "001.webp", "002.webp"]
        for view, name in enumerate(view_names(sample)):
            pixels = np.asarray(Image.open(io.BytesIO(sample[name])).convert("RGBA"))
            np.testing.assert_array_equal(pixels, pictures(seed)[view])
        cameras = npy_array(sample["cameras.npy"])
        assert cameras.dtype == np.float64
        np.testing.assert_array_equal(
            cameras, [np.load(io.BytesIO(released[uid][f"{view:03d}.npy"])) for view in range(3)]
        )
        meta = json.loads(sample["meta.json"])
        assert (meta["uid"], meta["resolution"], meta["verdicts"], meta["mesh"]) == (uid, 16, [], "")
        assert meta["coverage"][2] == 1.0 and 0.15 < meta["coverage"][0] < 0.35


def test_released_cameras_follow_the_camera_convention_of_the_shards(tmp_path):
    """Blender's camera above the equator on +x, at (2, 0, 0), tracks the origin with -z, its y up.

    Its axes in the world are right = +y, up = +z, backward = +x. World→camera has these as rows, and the origin lies
    2 in front, at -z: t = (0, 0, -2). In OpenCV's axes the last two rows would have the other sign.
    """
    blender = np.array([[0.0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, -2]])
    files = {"000.png": png(pictures(0)[0]), "000.npy": npy_bytes(blender)}
    pack(write_folder(tmp_path / "in", {"one": files}), tmp_path / "out")
    (camera,) = npy_array(samples(tmp_path / "out")["one"]["cameras.npy"])
    np.testing.assert_array_equal(camera, blender)
    from rendering.cameras import look_at_origin, project

    np.testing.assert_allclose(camera, look_at_origin([2, 0, 0]), atol=1e-15)
    # A point to the right of and above the origin appears right of and above the middle: 100 wide, focal 109.375.
    np.testing.assert_allclose(project([[0, 0.5, 0.25]], camera, 100), [[50 + 27.34375, 50 - 13.671875]])


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_and_its_folder_give_equal_shards(released, shards, tmp_path, mode):
    tar = write_tar(tmp_path / "views.tar", members(released), mode)
    pack(tar, tmp_path / "out", objects_per_shard=2)
    assert tars(tmp_path / "out") == tars(shards) and len(tars(shards)) == 3
    done = command("pipeline.verify", f"path={tmp_path / 'out'}")
    assert done.returncode == 0 and "0 of 3 shards damaged; 5 objects" in done.stdout
    inodes = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("views-*")}
    tar.write_bytes(bytes(tar.stat().st_size))  # a finished run need not read it again
    assert pack(tar, tmp_path / "out", objects_per_shard=2) == 0
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("views-*")} == inodes


def test_a_tar_is_read_from_a_url(released, shards, tmp_path):
    write_tar(tmp_path / "views.tar.gz", members(released))

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *words: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/views"
        pack(f"{url}.tar.gz", tmp_path / "out", objects_per_shard=2)
        assert tars(tmp_path / "out") == tars(shards)
        with pytest.raises(UserError, match="path=http"):
            pack(f"{url}.zip", tmp_path / "none")
    finally:
        server.shutdown()


def test_only_listed_objects_are_packed_and_missing_ones_are_recorded(released, folder, tmp_path):
    (tmp_path / "valid_paths.json").write_text(json.dumps(["f4", "gone", "c_1"]))
    tar = write_tar(tmp_path / "views.tar", members(released), "w")
    for name, path in (("a", folder), ("b", tar)):
        out = tmp_path / name
        pack(path, out, valid=f"{tmp_path}/valid_paths.json", max_failure_rate=0.5)
        assert list(samples(out)) == ["c_1", "f4"]
        assert failures(out).keys() == {"gone"} and failures(out)["gone"][0] == "missing"
    inside = write_folder(tmp_path / "views", released)
    (inside / "valid_paths.json").write_text('["e3"]')
    pack(inside, tmp_path / "c")
    assert list(samples(tmp_path / "c")) == ["e3"]


def test_shrinking_averages_colours_weighted_by_alpha():
    """Expected by hand: in each 2 × 2 block alpha is the mean, a colour the mean weighted by alpha."""
    red, green, hidden = (255, 0, 0, 255), (0, 255, 0, 255), (0, 0, 255, 0)
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:2, :2] = [[red, red], [red, hidden]]  # no blue fringe: 3/4 covered, pure red
    pixels[:2, 2:] = [[red, green], [red, green]]  # opaque, half and half
    pixels[2:, :2] = [[(200, 100, 0, 255), (40, 20, 8, 85)], [hidden, hidden]]
    pixels[2:, 2:] = hidden
    small = np.asarray(shrink(Image.fromarray(pixels), 2))
    assert small[0, 0].tolist() == [255, 0, 0, 191]
    assert small[0, 1].tolist() == [128, 128, 0, 255]
    assert small[1, 0].tolist() == [160, 80, 2, 85]  # (200·3 + 40)/4, (100·3 + 20)/4, 8/4; (255 + 85)/4
    assert small[1, 1].tolist() == [0, 0, 0, 0]


def test_resolution_halves_every_view(folder, tmp_path):
    pack(folder, tmp_path / "out", resolution=8)
    (sample, *_) = samples(tmp_path / "out").values()
    assert Image.open(io.BytesIO(sample["001.webp"])).size == (8, 8)
    assert json.loads(sample["meta.json"])["resolution"] == 8
    assert pack(folder, tmp_path / "larger", resolution=64) == 1
    assert failures(tmp_path / "larger")["e3"] == (
        "incomplete", "the pictures have 16² pixels, fewer than resolution=64",
    )  # fmt: skip


def bomb() -> bytes:
    """Return a PNG of a few kilobytes whose header declares a billion pixels."""
    head = bytearray(png(pictures(0)[0]))
    head[16:24] = (40_000).to_bytes(4, "big") * 2
    import zlib

    head[29:33] = zlib.crc32(head[12:29]).to_bytes(4, "big")
    return bytes(head)


def sixteen_bits() -> bytes:
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(b"".join(b"\0" + bytes(16 * 8) for _ in range(16)))
    header = struct.pack(">IIBBBBB", 16, 16, 16, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


GOOD = files_of(9)
NAN = npy_bytes(np.full((3, 4), np.nan))
HUGE = npy_bytes(np.eye(3, 4)).replace(b"(3, 4), }" + b" " * 14, b"(99999999999, 99999), }")
PICKLE = npy_bytes(np.eye(3, 4)).replace(b"'<f8'", b"'|O' ")
BROKEN = {
    "no-camera": ({k: v for k, v in GOOD.items() if k != "002.npy"}, "incomplete", "3 pictures and 2 cameras"),
    "no-picture": ({k: v for k, v in GOOD.items() if k != "000.png"}, "incomplete", "2 pictures and 3 cameras"),
    "a-gap": ({k: v for k, v in GOOD.items() if not k.startswith("001")}, "incomplete", "numbered from 000"),
    "nan": (GOOD | {"001.npy": NAN}, "degenerate", "001.npy is not a rotation"),
    "skewed": (GOOD | {"001.npy": npy_bytes(np.ones((3, 4)))}, "degenerate", "001.npy"),
    "pickle": (GOOD | {"001.npy": PICKLE}, "unreadable", "001.npy: "),
    "promises": (GOOD | {"001.npy": HUGE}, "unreadable", "99999999999"),
    "flat": (GOOD | {"001.npy": npy_bytes(np.eye(4))}, "unreadable", "[4, 4]"),
    "cut-npy": (GOOD | {"001.npy": GOOD["001.npy"][:-8]}, "unreadable", "001.npy"),
    "no-npy": (GOOD | {"001.npy": b"\x93NUMPY\x01\x00\x10\x00{'descr': ('<f8'"}, "unreadable", "001.npy"),
    "bomb": (GOOD | {"001.png": bomb()}, "too_large", "1600000000 pixels"),
    "cut": (GOOD | {"001.png": GOOD["001.png"][:-400]}, "unreadable", "001.png"),
    "text": (GOOD | {"001.png": b"no picture"}, "unreadable", "001.png"),
    "rgb": (GOOD | {"001.png": png(pictures(0)[0][..., :3])}, "unreadable", "not square RGBA of 8 bits"),
    "deep": (GOOD | {"001.png": sixteen_bits()}, "unreadable", "not square RGBA of 8 bits"),
    "wide": (GOOD | {"001.png": png(pictures(0)[0][:8])}, "unreadable", "16 × 8"),
    "sizes": (GOOD | {"001.png": png(pictures(0, side=8)[0])}, "unreadable", "8² pixels, earlier views 16²"),
}


def test_an_object_with_an_invalid_layout_is_recorded_with_its_reason(tmp_path):
    assert npy_bytes(np.eye(3, 4)) != HUGE and npy_bytes(np.eye(3, 4)) != PICKLE
    objects = {"good": GOOD} | {uid: files for uid, (files, _, _) in BROKEN.items()}
    tar = write_tar(tmp_path / "views.tar", members(objects))
    for name, path in (("a", write_folder(tmp_path / "in", objects)), ("b", tar)):
        assert pack(path, tmp_path / name) == 1
        assert list(samples(tmp_path / name)) == ["good"]
        found = failures(tmp_path / name)
        assert found.keys() == BROKEN.keys()
        for uid, (_, reason, part) in BROKEN.items():
            assert found[uid][0] == reason and part in found[uid][1], (uid, found[uid])


def test_an_untrusted_tar_writes_no_files_and_is_limited_in_memory(released, tmp_path):
    def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, target
        return member

    secret = tmp_path / "000.png"
    secret.write_bytes(GOOD["000.png"])
    path = tmp_path / "views.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:

        def add(name: str, contents: bytes) -> None:
            member = tarfile.TarInfo(name)
            member.size = len(contents)
            tar.addfile(member, io.BytesIO(contents))

        add("README.txt", b"not a view")
        for name, contents in GOOD.items():
            add(f"v/first/{name}", contents)
        tar.addfile(special("v/link/000.png", tarfile.SYMTYPE, str(secret)))
        tar.addfile(special("v/hard/000.png", tarfile.LNKTYPE, "v/first/000.png"))
        tar.addfile(special("v/pipe/000.png", tarfile.FIFOTYPE))
        tar.addfile(special("v/device/000.png", tarfile.CHRTYPE))
        add("v/../../climbs/000.png", GOOD["000.png"])
        add("/absolute/000.png", GOOD["000.png"])
        add("v/a.dot/000.png", GOOD["000.png"])
        add("v/twice/000.png", GOOD["000.png"])
        add("v/twice/000.png", GOOD["000.png"])
        giant = tarfile.TarInfo("v/giant/000.png")
        giant.size = 8 * MAX_OBJECT_BYTES
        with open("/dev/zero", "rb") as zeros:
            tar.addfile(giant, zeros)
        for name, contents in GOOD.items():
            add(f"v/last/{name}", contents)
    before = sorted(tmp_path.rglob("*"))
    script = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_DATA, (450 << 20, 450 << 20));"
        "from pipeline.zero123_release.release_layout import objects_of_tar;"
        "print({i.uid: i.failure and i.failure[0] for i in objects_of_tar(sys.argv[1], None, lambda n: None)})"
    )
    done = subprocess.run([sys.executable, "-c", script, path], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert eval(done.stdout) == {
        "first": None, "link": "external", "hard": "external", "pipe": "external", "device": "external",
        "climbs": "external", "absolute": "external", "a_dot": "unreadable", "twice": "incomplete",
        "giant": "too_large", "last": None,
    }  # fmt: skip
    assert sorted(tmp_path.rglob("*")) == before


def test_scattered_files_of_an_object_in_a_tar_are_a_failure(released, tmp_path):
    a, b, c = (released[uid] for uid in UIDS[:3])
    files = members({"a": a, "b": b}) + members(
        {"a": {"003.png": a["000.png"]}, "c": c, "b": {"003.npy": b["000.npy"]}}
    )
    pack(write_tar(tmp_path / "views.tar", files), tmp_path / "out", max_failure_rate=0.5)
    assert list(samples(tmp_path / "out")) == ["a", "b", "c"]
    found = failures(tmp_path / "out")
    assert found.keys() == {"a", "b"} and all(reason == "incomplete" for reason, _ in found.values())
    inspect.main(InspectConfig(str(tmp_path / "out")))
    page = (tmp_path / "out/index.html").read_text()
    assert "3 objects in 1 shards, 2 failed" in page and page.count("<figure>") == 3
    # Scattered files give one record per group of files.
    striped = [pair for name in sorted(a) for uid in "ab" for pair in members({uid: {name: released[UIDS[0]][name]}})]
    assert pack(write_tar(tmp_path / "striped.tar", striped), tmp_path / "striped") == 1
    (manifest,) = read_manifests(str(tmp_path / "striped"), "views")
    assert [record.uid for record in manifest.records] == ["a", "b", "a", "b"]


@pytest.mark.parametrize(
    "harm",
    [
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[: len(whole) // 2] + bytes([255]) * 512 + whole[len(whole) // 2 + 512 :],
    ],
)
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_damaged_tar_is_refused_and_a_complete_one_resumes(released, shards, tmp_path, harm, mode):
    tar = write_tar(tmp_path / "views.tar", members(released), mode)
    whole = tar.read_bytes()
    if mode == "w":  # damage a header
        where = whole.index(b"views_release/dd-2/001.npy")
        harmed = harm(whole[:where] * 2)[: where + 512] + whole[where + 512 :]
        tar.write_bytes(whole[: where + 100] if len(harm(whole)) < len(whole) else harmed)
    else:
        tar.write_bytes(harm(whole))
    with pytest.raises(UserError, match="path=.*damaged"):
        pack(tar, tmp_path / "out", objects_per_shard=2)
    if mode == "w":  # shards before the damage are committed
        assert len(find_manifests(str(tmp_path / "out"), "views")) == 1
        found = command("pipeline.verify", f"path={tmp_path / 'out'}")
        assert found.returncode == 1 and "is not finished" in found.stdout
    tar.write_bytes(whole)
    pack(tar, tmp_path / "out", objects_per_shard=2)
    assert tars(tmp_path / "out") == tars(shards)
    assert command("pipeline.verify", f"path={tmp_path / 'out'}").returncode == 0


def test_another_tar_is_refused_where_one_was_packed(released, tmp_path):
    first = write_tar(tmp_path / "views.tar", members(released))
    (tmp_path / "other").mkdir()
    fewer = members({uid: released[uid] for uid in sorted(released)[:1]})
    pack(first, tmp_path / "out")
    before = tars(tmp_path / "out")
    for other in (write_tar(tmp_path / "more.tar", members(released)), write_tar(tmp_path / "other/views.tar", fewer)):
        with pytest.raises(UserError, match="choose another folder"):
            pack(other, tmp_path / "out")
    pack(first, tmp_path / "out")
    assert tars(tmp_path / "out") == before


@pytest.mark.slow
@pytest.mark.parametrize("source", ["folder", "tar"])
def test_a_killed_run_resumes_with_equal_bytes(tmp_path, source):
    objects = {f"o{i:02d}": files_of(i, views=4, side=128) for i in range(24)}
    path = write_folder(tmp_path / "in", objects)
    if source == "tar":
        path = write_tar(tmp_path / "views.tar.gz", members(objects))
    words = ["pipeline.pack", f"path={path}", "objects_per_shard=3", "workers=2"]
    assert command(*words, f"output={tmp_path}/whole").returncode == 0
    out = tmp_path / "out"
    running = subprocess.Popen(
        [sys.executable, "-m", *words, f"output={out}"], cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    while len(find_manifests(str(out), "views")) < 2 and running.poll() is None:
        time.sleep(0.01)
    children = [int(pid) for pid in Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()]
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    committed = {manifest.name for manifest in find_manifests(str(out), "views")}
    assert 2 <= len(committed) < 8 and children
    kept = {name: (out / f"{name}.tar").stat().st_mtime_ns for name in committed}
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_text() for pid in children):
        assert time.monotonic() < deadline, "a worker outlives its parent"
        time.sleep(0.1)
    assert command(*words, f"output={out}").returncode == 0
    assert tars(out) == tars(tmp_path / "whole") and len(tars(out)) == 8
    assert kept == {name: (out / f"{name}.tar").stat().st_mtime_ns for name in committed}


def test_only_a_deleted_shard_is_written_again(folder, shards, tmp_path):
    pack(folder, tmp_path, objects_per_shard=2)
    times = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.tar")}
    for suffix in ("tar", "json"):
        (tmp_path / f"views-000001.{suffix}").unlink()
    pack(folder, tmp_path, objects_per_shard=2)
    assert tars(tmp_path) == tars(shards)
    assert {p.name for p in tmp_path.glob("*.tar") if p.stat().st_mtime_ns != times[p.name]} == {"views-000001.tar"}


def test_an_invalid_option_is_refused_by_its_name(folder, shards, released, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.tar").write_text("no tar at all\n" * 1000)
    (tmp_path / "bad.json").write_text('["../etc"]')
    none = write_tar(tmp_path / "none.tar", [("a.txt", b"x")])
    other = write_tar(tmp_path / "other.tar", members({uid: released["e3"] for uid in "xyz"}))
    two = {"output": str(shards), "objects_per_shard": 2}
    for path, options, sentence in [
        (tmp_path / "nowhere", {}, f"path={tmp_path}/nowhere: "),
        (tmp_path / "empty", {}, f"path={tmp_path}/empty: "),
        (none, {}, f"path={none}: "),
        (tmp_path / "text.tar", {}, f"path={tmp_path}/text.tar: "),
        (folder, {"valid": "nowhere.json"}, "valid=nowhere.json: "),
        (folder, {"valid": f"{tmp_path}/bad.json"}, "uid='../etc'"),
        (folder, {"valid": f"{tmp_path}/text.tar"}, f"valid={tmp_path}/text.tar: "),
        (folder, {"objects_per_shard": 0}, "objects_per_shard=0: "),
        (folder, {"output": str(shards)}, "objects_per_shard=2, now 256"),
        (folder, two | {"resolution": 8}, "resolution=None, now 8"),
        (folder, two | {"limit": 3}, "other objects"),
        (other, two, "other objects"),
    ]:
        with pytest.raises(UserError, match=re.escape(sentence)):
            pack(path, **{"output": tmp_path / "out"} | options)
    assert not list((tmp_path / "out").glob("*.tar"))


def test_training_reads_packed_views(tmp_path):
    """Shards that were exported and packed again give the pairs of the first shards and train a step."""
    from training.config import DataConfig
    from training.data.batches import fixed_pairs
    from training.data.sources import training_sources
    from training.data.split import split

    write_dots(tmp_path / "dots", objects=6, per_shard=6)  # one shard, as packing writes
    export(tmp_path / "dots", tmp_path / "release")
    pack(tmp_path / "release", tmp_path / "packed")
    pairs = []
    for root in ("dots", "packed"):
        data = DataConfig(path=str(tmp_path / root), workers=0)
        halves = split(training_sources(data), 0.3)
        pairs.append(fixed_pairs(data, halves.training, 16, seed=0, count=1))
    for name in ("condition", "target", "pose"):
        assert pairs[0][name].equal(pairs[1][name])
    done = command(
        "training.finetune", "model=tiny", f"data.path={tmp_path / 'packed'}", f"output={tmp_path / 'run'}",
        "trainer.max_steps=1", "data.batch_size=2", "data.workers=0", "data.validation_fraction=0.3", "sample.steps=1",
        "sample.rows=1", "trainer.accelerator=cpu",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/model").is_dir()
