"""Sources list their objects in a fixed order and under names that can be keys."""

import pytest

from conf.options import UserError
from pipeline.objects.folder import FolderObjects
from pipeline.objects.procedural import ProceduralObjects
from pipeline.shards import UID
from rendering.failure import RenderFailure


@pytest.fixture
def tree(tmp_path):
    for name in ("b.glb", "a chair.obj", "deep/er/b.GLB", "deep/notes.txt", "twice.ply", "twice.stl"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path


def test_a_folder_is_walked_to_any_depth_in_order(tree):
    assets = FolderObjects(str(tree)).find()
    assert [(a.uid, a.origin) for a in assets] == [
        ("a_chair", "a chair.obj"),
        ("b", "b.glb"),
        ("deep-er-b", "deep/er/b.GLB"),
        ("twice_ply", "twice.ply"),
        ("twice_stl", "twice.stl"),
    ]
    assert all(UID.fullmatch(a.uid) for a in assets)
    assert FolderObjects(str(tree), limit=2).find() == assets[:2]


def test_a_manifest_decides_where_there_is_one(tree):
    (tree / "objects.csv").write_text("uid,path,license,author\nthe.bee,deep/er/b.GLB,by,Ann\nchair,a chair.obj,,\n")
    assets = FolderObjects(str(tree)).find()
    assert [(a.uid, a.origin, a.license, a.author) for a in assets] == [
        ("the_bee", "deep/er/b.GLB", "by", "Ann"), ("chair", "a chair.obj", "", ""),
    ]  # fmt: skip
    assert FolderObjects(str(tree)).fetch(assets[0], tree, None) == tree / "deep/er/b.GLB"


def test_a_manifest_cannot_point_outside_its_folder(tree):
    for outside in ("../secret.glb", "/etc/passwd"):
        (tree / "objects.csv").write_text(f"uid,path\nx,{outside}\n")
        source = FolderObjects(str(tree))
        with pytest.raises(RenderFailure, match="outside"):
            source.fetch(source.find()[0], tree, None)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("name,path\na,b\n", "columns uid and path"),
        ("uid,path\na,b.glb\na,c.glb\n", "object a twice"),
        ("uid,path\na,b.glb\n,c.glb\n", "line 3: uid or path is empty"),
        ("uid,path\na\n", "line 2: uid or path is empty"),
    ],
)
def test_a_bad_manifest_is_refused(tree, manifest, message):
    (tree / "objects.csv").write_text(manifest)
    with pytest.raises(UserError, match=message):
        FolderObjects(str(tree)).find()


def test_a_manifest_of_a_spreadsheet_with_its_byte_order_mark(tree):
    (tree / "objects.csv").write_text("uid,path\nbee,b.glb\n", encoding="utf-8-sig")
    assert [asset.uid for asset in FolderObjects(str(tree)).find()] == ["bee"]


def test_a_link_stands_for_what_it_points_to(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store/4f2a").write_bytes(b"a chair")
    (tmp_path / "objects").mkdir()
    (tmp_path / "objects/chair.glb").symlink_to("../store/4f2a")
    source = FolderObjects(str(tmp_path / "objects"))
    (chair,) = source.find()
    path = source.fetch(chair, tmp_path, None)
    assert path.suffix == ".glb" and path.read_bytes() == b"a chair"


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_is_at_least_one(tree, limit):
    with pytest.raises(UserError, match="at least one"):
        FolderObjects(str(tree), limit).find()


def test_an_empty_and_a_missing_folder_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"no file ending in \.glb"):
        FolderObjects(str(tmp_path)).find()
    with pytest.raises(UserError, match="no folder"):
        FolderObjects(str(tmp_path / "nowhere")).find()


def test_procedural_objects_take_the_kinds_in_turn():
    first = ProceduralObjects(count=60).find()
    assert len({asset.uid for asset in first}) == 60
    assert ProceduralObjects(count=30).find() == first[:30]  # more objects leave the ones before as they are
    assert [asset.uid for asset in first[:2]] == ["chair-00000", "table-00001"]
    assert [a.uid for a in ProceduralObjects(count=3, kinds=["cat", "dog"]).find()] == [
        "cat-00000", "dog-00001", "cat-00002",
    ]  # fmt: skip
    with pytest.raises(UserError, match="there is no cow; choose from chair"):
        ProceduralObjects(kinds=["cow"]).find()
    assert {a.origin for a in first}.isdisjoint({a.origin for a in ProceduralObjects(count=60, seed=60).find()})
