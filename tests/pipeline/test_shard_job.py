"""The task that makes one shard, repeated after its machine was lost."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trimesh

from pipeline.plan import ShardJob
from pipeline.samples import read_samples
from pipeline.shard_job import render_asset, render_shard
from pipeline.shards import read_manifests
from pipeline.sources.folder import FolderObjects
from rendering.blender_process import BlenderProcess, Rendered
from rendering.failure import RenderFailure
from rendering.limits import Limits
from rendering.settings import RenderSettings


@pytest.mark.skipif(not importlib.util.find_spec("bpy"), reason="needs Blender, the `render` extra")
def test_a_retry_whose_first_attempt_was_committed_gives_the_same_shard(tmp_path):
    objects, root = tmp_path / "objects", str(tmp_path / "views")
    objects.mkdir()
    (objects / "a.ply").write_bytes(b"noise")
    trimesh.creation.box((1, 2, 3)).export(objects / "b.ply")
    source = FolderObjects(str(objects))
    settings = RenderSettings(resolution=16, views=2, samples=1)
    job = ShardJob(root, "views-000000", tuple(source.find()), source, settings, Limits(), 0)
    assert [record.status for record in render_shard(job)] == ["failed", "ok"]

    trimesh.creation.cone(1, 2).export(objects / "a.ply")
    (manifest,) = read_manifests(root, "views")
    retry = replace(job, kept=tuple(record for record in manifest.records if record.status == "ok"))
    tars = []
    for _ in range(2):  # the second time as Ray does when the machine is lost before the last record arrives
        assert [record.status for record in render_shard(retry)] == ["ok"]
        assert [uid for uid, _ in read_samples(root, "views-000000")] == ["a", "b"]
        tars.append(Path(root, "views-000000.tar").read_bytes())
    assert tars[0] == tars[1]


class Removing(BlenderProcess):
    """Remove each asset once its views are rendered, as its owner may do during a long run."""

    def render(self, asset: Path, *words: Any) -> Rendered:
        rendered = super().render(asset, *words)
        asset.unlink()
        return rendered


@pytest.mark.skipif(not importlib.util.find_spec("bpy"), reason="needs Blender, the `render` extra")
def test_a_file_that_is_removed_while_it_is_rendered_is_missing(tmp_path):
    trimesh.creation.box((1, 2, 3)).export(tmp_path / "a.ply")
    source = FolderObjects(str(tmp_path))
    (asset,) = source.find()
    settings = RenderSettings(resolution=16, views=1, samples=1)
    job = ShardJob("", "views-000000", (asset,), source, settings, Limits(), 0)
    with Removing() as renderer, pytest.raises(RenderFailure, match="missing"):
        render_asset(asset, tmp_path / "a.ply", job, renderer)
