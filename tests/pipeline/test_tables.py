"""objects.csv and licenses.csv: one row per object, and quoting of any author name."""

import csv

import fsspec
import pytest

from pipeline.plan import ShardJob
from pipeline.shards import ObjectRecord, ShardManifest, duplicates, write_shard
from pipeline.sources.procedural import ProceduralObjects
from pipeline.sources.source import Asset
from pipeline.tables import write_tables
from rendering.limits import Limits
from rendering.settings import RenderSettings

STRANGE = 'Bo "the box", Jr.\nsecond line\rthird; =1+1 木'


def manifest(*records: ObjectRecord) -> ShardManifest:
    return ShardManifest("views-000000", 0, "", records)


def test_the_first_object_with_a_mesh_is_the_original():
    first = manifest(
        ObjectRecord("failed", "failed", "blank", mesh="m"),
        ObjectRecord("a", "ok", mesh="m"),
        ObjectRecord("b", "ok", mesh="n"),
        ObjectRecord("unknown", "ok"),
        ObjectRecord("c", "ok", mesh="m"),
    )
    second = manifest(
        ObjectRecord("d", "ok", mesh="n"), ObjectRecord("unknown too", "ok"), ObjectRecord("e", "ok", mesh="m")
    )
    assert duplicates([first, second]) == {"c": "a", "d": "b", "e": "a"}
    assert duplicates([second, first]) == {"b": "d", "a": "e", "c": "e"}
    assert duplicates([]) == {}


@pytest.mark.parametrize("where", ["folder", "memory"])
def test_every_object_has_one_row_in_the_tables(tmp_path, where):
    root = str(tmp_path / "views") if where == "folder" else "memory://tables/views"
    assets = (Asset("a", "x/a.glb", "by", STRANGE), Asset("b", "x/b.glb", "cc0", "Ann"), Asset("c", "c.glb"))
    records = [
        ObjectRecord("a", "ok", seconds=1.5, mesh="m", verdicts=("clipped", "flat")),
        ObjectRecord("b", "failed", "download", "the server\nsays 404", 2.0),
    ]
    write_shard(root, "views-000000", [("a", {"meta.json": b"{}"})], records)
    write_shard(root, "views-000001", [("c", {"meta.json": b"{}"})], [ObjectRecord("c", "ok", mesh="m")])
    common = (ProceduralObjects(), RenderSettings(), Limits(), 0)
    jobs = [ShardJob(root, "views-000000", assets[:2], *common), ShardJob(root, "views-000001", assets[2:], *common)]
    for _ in range(2):  # the second call replaces the tables
        write_tables(root, jobs)
    with fsspec.open(f"{root}/objects.csv", "r", newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [
            ["uid", "shard", "status", "reason", "detail", "verdicts"]
            + ["duplicate_of", "license", "author", "source", "seconds"],
            ["a", "views-000000", "ok", "", "", "clipped flat", "", "by", STRANGE, "x/a.glb", "1.5"],
            ["b", "views-000000", "failed", "download", "the server\nsays 404", "", "", "cc0", "Ann", "x/b.glb", "2.0"],
            ["c", "views-000001", "ok", "", "", "", "a", "", "", "c.glb", "0.0"],
        ]
    with fsspec.open(f"{root}/licenses.csv", "r", newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [
            ["uid", "license", "author", "source"],
            ["a", "by", STRANGE, "x/a.glb"],
            ["c", "", "", "c.glb"],
        ]
    fs, path = fsspec.core.url_to_fs(root)
    assert not [name for name in fs.ls(path, detail=False) if name.endswith(".part")]
