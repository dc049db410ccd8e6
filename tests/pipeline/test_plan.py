"""The plan of a run and the uids of its objects."""

import pytest

from conf.options import UserError
from pipeline.config import RenderConfig
from pipeline.plan import make_jobs
from pipeline.shards import read_plan
from pipeline.sources.procedural import ProceduralObjects
from pipeline.sources.source import Asset
from pipeline.uid import as_uid, is_uid


def test_the_plan_hash_does_not_depend_on_the_version(tmp_path):
    objects = ProceduralObjects(count=5, kinds=["car", "duck"])
    jobs = make_jobs(RenderConfig(objects=objects, output=str(tmp_path), objects_per_shard=2))
    assert [(job.name, [asset.uid for asset in job.assets]) for job in jobs] == [
        ("views-000000", ["car-00000", "duck-00001"]),
        ("views-000001", ["car-00002", "duck-00003"]),
        ("views-000002", ["car-00004"]),
    ]
    # sha256 of the lines "<uid> <origin>", and of one space after each shard
    assert read_plan(str(tmp_path))["listing"] == "f3f79dead370ddbb5664b7f8770c26d43e5ae5ff484f0d936777eca770bc34c5"


@pytest.mark.parametrize("uid", ["", "a.b", "a b", "a/b", "..", "ä", "a\n", "a" * 201])
def test_an_asset_refuses_a_uid_that_cannot_name_files_of_a_tar(uid):
    with pytest.raises(UserError) as raised:
        Asset(uid, "a.glb")
    assert str(raised.value).startswith(f"uid={uid!r}: ")
    assert is_uid(as_uid(uid)) or uid == ""


@pytest.mark.parametrize("uid", ["a", "A-1_b", "-", "a" * 200])
def test_an_asset_accepts_a_valid_uid(uid):
    assert Asset(uid, "a.glb").uid == uid == as_uid(uid)
