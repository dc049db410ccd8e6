"""Shards: reproducible bytes, commits by manifest, detection of damage."""

import json
import tarfile

import numpy as np
import pytest
from botocore.exceptions import ClientError
from fsspec.implementations.memory import MemoryFileSystem

from conf.options import UserError
from pipeline.samples import DamagedShard, npy_array, npy_bytes, read_samples, view_names
from pipeline.shards import (
    ObjectRecord,
    ShardWriter,
    find_manifests,
    find_tars,
    integrity_error,
    read_manifests,
    read_plan,
    write_shard,
)
from pipeline.storage import normalised

SAMPLES = [
    ("chair-1", {"001.webp": b"b", "000.webp": b"a", "cameras.npy": npy_bytes(np.eye(3)), "meta.json": b"{}"}),
    ("a_b", {"000.webp": b"c" * 5000, "cameras.npy": npy_bytes(np.zeros(2)), "meta.json": b'{"x": 1}'}),
]
RECORDS = [
    ObjectRecord("chair-1", "ok"),
    ObjectRecord("broken", "failed", "blank", "nothing"),
    ObjectRecord("a_b", "ok", seconds=1.5),
]


@pytest.fixture
def root(tmp_path):
    write_shard(str(tmp_path), "views-000003", SAMPLES, RECORDS)
    return str(tmp_path)


def test_samples_round_trip(root):
    (manifest,) = read_manifests(root, "views")
    assert manifest.name == "views-000003" and manifest.records == tuple(RECORDS)
    assert manifest.uids == ["chair-1", "a_b"]
    assert list(read_samples(root, manifest.name)) == SAMPLES
    assert view_names(SAMPLES[0][1]) == ["000.webp", "001.webp"]
    np.testing.assert_array_equal(npy_array(SAMPLES[0][1]["cameras.npy"]), np.eye(3))


def test_the_tar_is_a_webdataset_without_machine_dependent_headers(root):
    with tarfile.open(f"{root}/views-000003.tar") as tar:
        members = tar.getmembers()
    assert [m.name for m in members[:4]] == [
        "chair-1.000.webp", "chair-1.001.webp", "chair-1.cameras.npy", "chair-1.meta.json",
    ]  # fmt: skip
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}


def test_equal_samples_give_equal_bytes(root, tmp_path):
    again = tmp_path / "again"
    manifest = write_shard(str(again), "views-000003", SAMPLES, [])
    assert (again / "views-000003.tar").read_bytes() == (tmp_path / "views-000003.tar").read_bytes()
    assert manifest.sha256 == read_manifests(root, "views")[0].sha256


def test_a_tar_without_manifest_is_not_listed(tmp_path):
    with pytest.raises(KeyboardInterrupt), ShardWriter(str(tmp_path), "views-000000") as shard:
        shard.add(*SAMPLES[0])
        raise KeyboardInterrupt
    (tmp_path / "views-000001.tar").write_bytes(b"half")
    assert find_manifests(str(tmp_path), "views") == []
    assert find_tars(str(tmp_path), "views") == ["views-000001"]
    with pytest.raises(UserError, match="no finished views shard"):
        read_manifests(str(tmp_path), "views")


def test_view_and_latent_shards_are_listed_separately(root):
    assert find_manifests(root, "latents") == []


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda tar: tar.unlink(), "missing"),
        (lambda tar: (tar.unlink(), tar.mkdir()), "cannot be read"),
        (lambda tar: tar.write_bytes(tar.read_bytes()[:-512]), "bytes, not"),
        (lambda tar: tar.write_bytes(tar.read_bytes().replace(b"ccc", b"ccd", 1)), "sha256"),
    ],
)
def test_damage_is_detected(root, tmp_path, harm, message):
    (manifest,) = read_manifests(root, "views")
    assert integrity_error(root, manifest) == ""
    harm(tmp_path / "views-000003.tar")
    assert message in integrity_error(root, manifest)


def test_a_store_that_denies_the_commit_of_a_shard_is_one_error(monkeypatch):
    def denied(*_: object, **__: object) -> None:
        raise ClientError({"Error": {"Code": "403", "Message": "Forbidden"}}, "HeadObject")

    monkeypatch.setattr(MemoryFileSystem, "exists", denied)
    with pytest.raises(UserError, match=r"memory://denied/views-000000\.json: .*Forbidden"):
        write_shard("memory://denied", "views-000000", [("a", {"meta.json": b"{}"})], [ObjectRecord("a", "ok")])


@pytest.mark.parametrize("contents", ["", "[]", '{"name": "views-000003"}', '{"name": 1, "size": "x"}'])
def test_an_invalid_manifest_is_refused_by_name(root, tmp_path, contents):
    (tmp_path / "views-000003.json").write_text(contents)
    with pytest.raises(UserError, match="views-000003.json: not a valid manifest"):
        read_manifests(root, "views")


def test_arrays_are_never_unpickled():
    harmful = npy_bytes(np.array(["x"])).replace(b"'<U1'", b"'|O' ")
    with pytest.raises(ValueError, match="header .*object"):
        npy_array(harmful)


@pytest.mark.parametrize("array", [np.zeros((0, 3)), np.float32(2), np.asfortranarray(np.arange(12.0).reshape(3, 4))])
def test_an_array_is_read_in_place(array):
    contents = npy_bytes(array)
    again = npy_array(contents)
    np.testing.assert_array_equal(again, array, strict=True)
    assert not again.flags.writeable and again.base is not None


@pytest.mark.parametrize("claim", [b"(10000000000,), ", b"(-1, -3), ", b"(2, 2), ", b"(10**10,), "])
def test_an_array_header_larger_than_its_bytes_is_refused_without_allocating(claim):
    contents = npy_bytes(np.zeros(3)).replace(b"(3,), }".ljust(len(claim) + 1), claim + b"}")
    assert claim in contents
    with pytest.raises(ValueError):
        npy_array(contents)


def test_a_member_larger_than_the_tar_is_damage(root):
    with open(f"{root}/views-000003.tar", "r+b") as file:
        header = tarfile.TarInfo("chair-1.000.webp")
        header.size = 1 << 50
        file.write(header.tobuf())
    with pytest.raises(DamagedShard, match=f"{1 << 50:,}"):
        list(read_samples(root, "views-000003"))


def test_shards_are_read_from_any_fsspec_url():
    manifest = write_shard("memory://bucket/views", "views-000000", SAMPLES, RECORDS)
    assert read_manifests("memory://bucket/views", "views") == [manifest]
    assert list(read_samples("memory://bucket/views", "views-000000")) == SAMPLES
    assert integrity_error("memory://bucket/views", manifest) == ""


def test_the_manifest_is_plain_json(root, tmp_path):
    fields = json.loads((tmp_path / "views-000003.json").read_text())
    assert fields["records"][1] == {
        "uid": "broken", "status": "failed", "reason": "blank", "detail": "nothing", "seconds": 0.0,
        "phases": {}, "bytes": 0, "node": "", "verdicts": [], "mesh": "",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["a[1]", "b*?", "~root", "c::d", "e{0..3}", "f #1, g=(h)"])
def test_any_folder_name_can_be_written_and_read(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for shard in ("views-000000", "views-000001"):
        write_shard(name, shard, [(shard, {"meta.json": b"{}"})], [ObjectRecord(shard, "ok")])
    assert (tmp_path / name / "views-000001.json").is_file()
    assert [manifest.name for manifest in read_manifests(name, "views")] == ["views-000000", "views-000001"]
    assert dict(read_samples(name, "views-000001")) == {"views-000001": {"meta.json": b"{}"}}


def test_equivalent_paths_are_one_location(tmp_path, monkeypatch):
    (tmp_path / "views").mkdir()
    (tmp_path / "link").symlink_to("views")
    monkeypatch.chdir(tmp_path)
    spellings = (
        "views",
        "views/",
        "./views",
        "views//",
        "link/.",
        f"{tmp_path}/other/../views",
        f"file://{tmp_path}/views",
    )
    assert {normalised(name) for name in spellings} == {str((tmp_path / "views").resolve())}
    assert {normalised(f"s3://bucket/{name}") for name in ("a/b", "a/b/", "a//b//")} == {"s3://bucket/a/b"}
    assert normalised("s3://bucket/a") != normalised("s3://bucket/b") and normalised("views") != normalised("view")


def test_a_url_with_a_slash_at_its_end_is_the_same_folder():
    root = "memory://a-slash/views"
    write_shard(f"{root}/", "views-000000", [("a", {"x": b"1"})], [ObjectRecord("a", "ok")])
    assert [manifest.name for manifest in find_manifests(root, "views")] == ["views-000000"]
    assert dict(read_samples(f"{root}//", "views-000000")) == {"a": {"x": b"1"}}


@pytest.mark.parametrize("url", ["cloud://bucket/views", "gs://bucket/views"])
def test_a_url_of_an_unknown_or_uninstalled_store_is_refused_by_name(url):
    with pytest.raises(UserError, match=f"^{url}: "):
        read_manifests(url, "views")


@pytest.mark.parametrize("contents", ["", "{", "[1, 2]", "3"])
def test_a_damaged_plan_is_refused_by_name(contents, tmp_path):
    (tmp_path / "plan.json").write_text(contents)
    with pytest.raises(UserError, match=f"^{tmp_path}/plan.json: "):
        read_plan(str(tmp_path))
