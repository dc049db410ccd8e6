"""Sources list their objects in a fixed order with valid uids."""

import hashlib
import os

import pytest

from conf.options import UserError
from pipeline.sources.folder import FolderObjects
from pipeline.sources.procedural import ProceduralObjects
from pipeline.uid import is_uid
from rendering.failure import RenderFailure


@pytest.fixture
def tree(tmp_path):
    for name in ("b.glb", "a chair.obj", "deep/er/b.GLB", "deep/notes.txt", "twice.ply", "twice.stl"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path


def test_a_folder_is_searched_recursively_in_order(tree):
    assets = FolderObjects(str(tree)).find()
    assert [(a.uid, a.origin) for a in assets] == [
        ("a_chair-0f731cbc76d3", "a chair.obj"),
        ("b", "b.glb"),
        ("deep-er-b", "deep/er/b.GLB"),
        ("twice_ply", "twice.ply"),
        ("twice_stl", "twice.stl"),
    ]
    assert all(is_uid(a.uid) for a in assets)
    assert FolderObjects(str(tree), limit=2).find() == assets[:2]


def test_patterns_choose_files_without_changing_their_uids(tree):
    every = FolderObjects(str(tree)).find()
    assert FolderObjects(str(tree), include=["deep/*", "*.ply"]).find() == [every[2], every[3]]
    assert FolderObjects(str(tree), exclude=["deep/*", "*.ply"], limit=3).find() == [every[0], every[1], every[4]]
    with pytest.raises(UserError, match="include"):
        FolderObjects(str(tree), include=["none/*"]).find()


def test_a_uid_list_selects_objects_of_any_source(tree, tmp_path):
    listed = tmp_path / "validation.txt"
    listed.write_text("deep-er-b\nchair-00002\nof-another-source\n")
    assert [a.uid for a in FolderObjects(str(tree), uids=str(listed)).find()] == ["deep-er-b"]
    procedural = ProceduralObjects(count=4, kinds=["chair", "car"])
    chosen = ProceduralObjects(count=4, kinds=["chair", "car"], uids=str(listed))
    assert chosen.find() == [procedural.find()[2]]
    listed.write_text("nothing")
    with pytest.raises(UserError, match="uids"):
        chosen.find()


def test_objects_csv_takes_precedence_over_the_search(tree):
    (tree / "objects.csv").write_text("uid,path,license,author\nthe.bee,deep/er/b.GLB,by,Ann\nchair,a chair.obj,,\n")
    assets = FolderObjects(str(tree)).find()
    assert [(a.uid, a.origin, a.license, a.author) for a in assets] == [
        ("the_bee-15dfc662f5f4", "deep/er/b.GLB", "by", "Ann"), ("chair", "a chair.obj", "", ""),
    ]  # fmt: skip
    assert FolderObjects(str(tree)).fetch(assets[0], tree, None) == tree / "deep/er/b.GLB"


def test_objects_csv_cannot_refer_outside_its_folder(tree):
    for outside in ("../secret.glb", "/etc/passwd"):
        (tree / "objects.csv").write_text(f"uid,path\nx,{outside}\n")
        source = FolderObjects(str(tree))
        with pytest.raises(RenderFailure, match="outside"):
            source.fetch(source.find()[0], tree, None)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("name,path\na,b\n", "objects.csv: .*uid and path"),
        ("uid,path\n", "objects.csv: "),
        ("uid,path\na,b.glb\na,c.glb\n", "objects.csv: uid a "),
        ("uid,path\na,b.glb\n,c.glb\n", "objects.csv, line 3: "),
        ("uid,path\na\n", "objects.csv, line 2: "),
        (b"uid,path\na,\xe9.glb\n", "UTF-8"),
    ],
)
def test_an_invalid_objects_csv_is_refused(tree, manifest, message):
    (tree / "objects.csv").write_bytes(manifest if isinstance(manifest, bytes) else manifest.encode())
    with pytest.raises(UserError, match=message):
        FolderObjects(str(tree)).find()


def test_objects_csv_with_a_byte_order_mark_is_read(tree):
    (tree / "objects.csv").write_text("uid,path\nbee,b.glb\n", encoding="utf-8-sig")
    assert [asset.uid for asset in FolderObjects(str(tree)).find()] == ["bee"]


def test_a_linked_file_is_read_from_its_target(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store/4f2a").write_bytes(b"a chair")
    (tmp_path / "objects").mkdir()
    (tmp_path / "objects/chair.glb").symlink_to("../store/4f2a")
    source = FolderObjects(str(tmp_path / "objects"))
    (chair,) = source.find()
    path = source.fetch(chair, tmp_path, None)
    assert path.suffix == ".glb" and path.read_bytes() == b"a chair"


def touch(root, *names):
    for name in names:
        path = os.path.join(os.fsencode(root), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb"):
            pass


def uids(root):
    return {asset.origin: asset.uid for asset in FolderObjects(str(root)).find()}


def test_uids_of_names_with_other_characters_depend_on_their_own_path_only(tmp_path):
    names = [
        "椅子.glb",
        "机器.glb",
        "a b.glb",
        "a.b.glb",
        "a_b.glb",
        f"{'x' * 210}1.glb",
        f"{'x' * 210}2.glb",
        "桌/椅子.glb",
    ]
    alone = {}
    for number, name in enumerate(names):
        touch(tmp_path / f"{number}", name)
        alone |= uids(tmp_path / f"{number}")
        touch(tmp_path / "all", name)
    assert uids(tmp_path / "all") == alone
    assert len(set(alone.values())) == len(names) and all(is_uid(uid) for uid in alone.values())
    assert alone["a_b.glb"] == "a_b"
    assert alone["椅子.glb"] == "__-" + hashlib.sha256("椅子.glb".encode()).hexdigest()[:12]


def test_paths_with_equal_uids_get_distinct_uids(tmp_path):
    touch(tmp_path, "a/b.glb", "a-b.glb", "c.ply", "c.stl", "c_ply.obj")
    found = uids(tmp_path)
    assert len(set(found.values())) == 5 and found["c.stl"] == "c_stl"


def test_a_path_that_is_not_utf8_is_unreadable(tmp_path):
    touch(tmp_path, b"caf\xe9.glb", b"caf\xe8.glb", "caf\\xe9.glb", b"stra\xdfe/a.glb")
    source = FolderObjects(str(tmp_path))
    assets = source.find()
    assert len({asset.uid for asset in assets}) == 4
    failed = []
    for asset in assets:
        try:
            assert source.fetch(asset, tmp_path, None).is_file()
        except RenderFailure as failure:
            assert failure.reason == "unreadable"
            failed.append(asset.origin)
    assert sorted(failed) == ["caf\\xe8.glb", "caf\\xe9.glb", "stra\\xdfe/a.glb"]


def test_hidden_files_and_system_folders_are_skipped(tmp_path):
    touch(tmp_path, "a.glb", "._a.glb", "__MACOSX/a.glb", "__MACOSX/b/._a.glb", ".cache/b.glb", "c/.git/d.obj")
    assert list(uids(tmp_path)) == ["a.glb"]


def test_linked_folders_are_searched_once(tmp_path, capsys):
    touch(tmp_path / "store", "deep/a.glb", "b.glb")
    objects = tmp_path / "objects"
    touch(objects, "c/d.glb")
    (tmp_path / "store/deep/cycle").symlink_to(tmp_path / "store")
    (objects / "same").symlink_to("c")
    (objects / "cycle").symlink_to(".")
    (objects / "around").symlink_to(tmp_path)
    (objects / "first").symlink_to(tmp_path / "store")
    (objects / "second").symlink_to(tmp_path / "store")
    (objects / "nothing").symlink_to(tmp_path / "nothing")
    assert list(uids(objects)) == ["c/d.glb", "first/b.glb", "first/deep/a.glb"]
    assert "around" in capsys.readouterr().err


def test_a_broken_link_is_listed(tmp_path):
    (tmp_path / "a.glb").symlink_to("not_fetched_yet")
    (tmp_path / "b.glb").symlink_to("b.glb")
    assert list(uids(tmp_path)) == ["a.glb", "b.glb"]


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(tree, limit):
    with pytest.raises(UserError, match=f"objects.limit={limit}: "):
        FolderObjects(str(tree), limit).find()


def test_an_empty_and_a_missing_folder_are_refused(tmp_path):
    with pytest.raises(UserError, match=f"objects.path={tmp_path}: "):
        FolderObjects(str(tmp_path)).find()
    with pytest.raises(UserError, match=f"objects.path={tmp_path}/nowhere: "):
        FolderObjects(str(tmp_path / "nowhere")).find()


def test_procedural_objects_cycle_through_the_kinds():
    first = ProceduralObjects(count=60).find()
    assert len({asset.uid for asset in first}) == 60
    assert ProceduralObjects(count=30).find() == first[:30]  # the first objects do not depend on count
    assert [asset.uid for asset in first[:2]] == ["chair-00000", "table-00001"]
    assert [a.uid for a in ProceduralObjects(count=3, kinds=["cat", "dog"]).find()] == [
        "cat-00000", "dog-00001", "cat-00002",
    ]  # fmt: skip
    for options, name in (({"kinds": ["cow"]}, "kinds=cow"), ({"count": 0}, "count=0"), ({"seed": -1}, "seed=-1")):
        with pytest.raises(UserError, match=f"objects.{name}: "):
            ProceduralObjects(**options).find()
    assert {a.origin for a in first}.isdisjoint({a.origin for a in ProceduralObjects(count=60, seed=60).find()})
