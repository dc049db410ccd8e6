"""Objaverse from a server on loopback: selection, licences, caches and a rendering."""

import csv
import gzip
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import trimesh

from conf.options import UserError
from pipeline.samples import read_samples
from pipeline.shards import read_manifests
from pipeline.sources.objaverse import ObjaverseObjects
from tests.support.command import PROJECT, command
from tests.support.objaverse_hub import Hub, packed, serving

UIDS = [f"{i:032x}" for i in range(8)]
AUTHORS = ["Ann", 'Bo "the box", Jr.', "two\nlines\rthree", "=1+1", "Zoë 木", "half \ud800", "", "Ann"]
LICENSES = ["by", "by", "by-sa", "cc0", "by", "by-nc", "by", "by"]


def annotation(i: int) -> dict:
    """Return an annotation with the fields of Sketchfab that the catalogue reads."""
    glb = {"glb": {"size": 10**6 * i, "faceCount": 100 * i, "vertexCount": 1, "type": "glb"}}
    return {
        "uid": UIDS[i],
        "name": f"object {i}",
        "user": {"username": f"user{i}", "displayName": AUTHORS[i]},
        "license": LICENSES[i],
        "likeCount": i,
        "faceCount": 7,
        "archives": glb if i != 7 else {"glb": {"size": None, "faceCount": None}, "gltf": {"size": 5}},
    }


def box(i: int) -> bytes:
    return trimesh.creation.box((1, 1 + i, 2)).export(file_type="glb")


@pytest.fixture
def hub():
    hub = Hub()
    chairs = {"chair": UIDS[:5], "armchair": UIDS[5:6], "teapot": UIDS[6:], "bow_(weapon)": UIDS[:1]}
    hub.add_objects({uid: box(i) for i, uid in enumerate(UIDS)}, {u: annotation(i) for i, u in enumerate(UIDS)}, chairs)
    with serving(hub):
        yield hub


@pytest.fixture
def source(hub, tmp_path):
    def source(**options) -> ObjaverseObjects:
        fast = {"backoff": 0.01, "retries": 2}
        return ObjaverseObjects(**{"endpoint": hub.url, "cache": str(tmp_path / "cache"), **fast, **options})

    return source


def found(source) -> list[int]:
    return [int(asset.uid, 16) for asset in source.find()]


def test_all_objects_are_listed_in_a_seeded_order(source):
    order = found(source())
    assert sorted(order) == list(range(8)) and found(source()) == order
    assert sorted(found(source(seed=1))) == list(range(8)) and found(source(seed=1)) != order
    assert found(source(limit=3)) == order[:3]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"lvis": ["chair"]}, {0, 1, 2, 3, 4}),
        ({"lvis": ["teapot", "armchair"]}, {5, 6, 7}),
        ({"licenses": ["by-sa", "cc0"]}, {2, 3}),
        ({"min_triangles": 300, "max_triangles": 500}, {3, 4, 5}),
        ({"max_triangles": 50}, {0, 7}),  # without a number for the GLB, that of the model counts
        ({"max_megabytes": 1.5}, {0, 1, 7}),  # objects of unknown size pass
        ({"min_likes": 6}, {6, 7}),
        ({"lvis": ["chair"], "licenses": ["by"], "min_likes": 1}, {1, 4}),
    ],
)
def test_filters_apply_before_the_limit(source, options, expected):
    order = found(source(**options))
    assert set(order) == expected and len(order) == len(expected)
    everything = found(source())
    assert order == [i for i in everything if i in expected]  # filters do not change the order
    assert found(source(limit=1, **options)) == order[:1]


@pytest.mark.parametrize(
    "text",
    [
        f"{UIDS[2]}\n{UIDS[5]}\n",
        "\ufeff" + f"{UIDS[2]}\r\n\r\n{UIDS[5]}",
        json.dumps([UIDS[2], UIDS[5]]),
        json.dumps([f"views_release/{UIDS[2]}", f"views_release/{UIDS[5]}/"], indent=1),
        f"{UIDS[2]}.glb\nglbs/000-002/{UIDS[5]}.glb",
    ],
)
def test_uids_are_read_from_text_and_json(source, tmp_path, text):
    (tmp_path / "uids").write_text(text)
    assert set(found(source(uids=str(tmp_path / "uids")))) == {2, 5}


def test_licence_and_author_come_from_the_annotations(source):
    rights = {int(asset.uid, 16): (asset.license, asset.author) for asset in source().find()}
    authors = [*AUTHORS[:5], "half ?", "user6", "Ann"]  # UTF-8 has no lone surrogates
    assert rights == {i: (LICENSES[i], authors[i]) for i in range(8)}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"lvis": ["chairs"]}, "objects.lvis=chairs: .*similar are chair"),
        ({"licenses": ["mit"]}, "objects.licenses=mit: .*by, by-sa"),
        ({"licenses": ["by-nc-nd"]}, "objects.licenses=by-nc-nd: .* 8 objects"),
        (
            {"lvis": ["teapot"], "licenses": ["by"], "min_triangles": 10**6},
            "objects.min_triangles=1000000: .* 2 objects",
        ),
        ({"licenses": ["cc0"], "min_likes": 4}, "objects.min_likes=4: .* 1 objects"),
        ({"limit": 0}, "objects.limit=0: "),
        ({"endpoint": "ftp://x"}, "objects.endpoint=ftp://x: "),
        ({"cache_gigabytes": 0}, "objects.cache_gigabytes=0: "),
        ({"uids": "nowhere"}, "objects.uids=nowhere: "),
        ({"cache": "/proc/x"}, "objects.cache: /proc/x"),
    ],
)
def test_an_invalid_option_is_refused_by_its_name(source, options, sentence):
    with pytest.raises(UserError, match=sentence):
        source(**options).find()


def test_unknown_uids_are_refused_by_name(source, tmp_path):
    (tmp_path / "uids").write_text(f"{UIDS[2]} unknown")
    with pytest.raises(UserError, match="objects.uids=.* 1 of 2 .*unknown"):
        source(uids=str(tmp_path / "uids")).find()
    (tmp_path / "uids").write_text("[1")
    with pytest.raises(UserError, match="objects.uids="):
        source(uids=str(tmp_path / "uids")).find()


def test_only_required_annotation_files_are_downloaded(source, hub):
    source(limit=1).find()
    assert len([path for path, *_ in hub.requested if path.startswith("metadata/")]) == 1
    hub.requested.clear()
    source(limit=1).find()
    assert hub.requested == []  # everything is in the cache


def test_a_damaged_catalogue_file_is_refused_by_name(source, hub, tmp_path):
    source().find()
    path = tmp_path / "cache/hf-objaverse-v1/metadata/000-001.json.gz"
    for contents in (path.read_bytes()[:-20], b"noise", gzip.compress(b"{"), gzip.compress(b"[]")):
        path.write_bytes(contents)
        with pytest.raises(UserError, match=r"000-001\.json\.gz: damaged"):
            source().find()


@pytest.mark.parametrize("path", ["../../etc/passwd", "glbs/../../x.glb", "/etc/passwd", "http://x/a.glb"])
def test_a_catalogue_path_outside_the_dataset_is_refused(source, hub, path):
    hub.files["object-paths.json.gz"] = packed({UIDS[0]: path})
    with pytest.raises(UserError, match=rf"object-paths\.json\.gz: .*{path}"):
        source().find()


def test_annotations_of_other_types_count_as_unknown(source, hub):
    odd = [None, [], {"user": "Ann", "archives": []}, {"archives": {"glb": 3}, "likeCount": float("nan")}]
    folders = {
        f"metadata/000-00{i}.json.gz": dict(zip(UIDS[2 * i : 2 * i + 2], odd[2 * i :], strict=False)) for i in (0, 1)
    }
    hub.files |= {path: packed(notes) for path, notes in folders.items()}
    assets = {int(asset.uid, 16): asset for asset in source().find()}
    assert all((assets[i].license, assets[i].author) == ("", "") for i in range(4)) and assets[4].author == "Zoë 木"
    assert 3 not in found(source(min_likes=0))


def test_catalogue_downloads_are_retried(source, hub):
    for path in list(hub.files):
        hub.faults[path] = [503, (429, "0"), "truncate"]
    assert sorted(found(source(retries=3))) == list(range(8))


def test_files_of_the_objaverse_package_are_used_and_never_evicted(source, hub, tmp_path):
    assets = source().find()
    own = tmp_path / "cache/hf-objaverse-v1" / assets[0].origin
    own.parent.mkdir(parents=True)
    own.write_bytes(b"package")
    for asset in assets:
        (tmp_path / asset.uid).mkdir()
        path = source(cache_gigabytes=1e-9).fetch(asset, tmp_path / asset.uid, None)
        assert path.read_bytes() == (b"package" if asset is assets[0] else hub.files[asset.origin])
    assert own.read_bytes() == b"package" and not hub.requests(assets[0].origin)
    assert not list((tmp_path / "cache/rendered").rglob("*.glb"))


LIST = """
from pathlib import Path
from pipeline.sources.objaverse import ObjaverseObjects
source = ObjaverseObjects(retries=0)
print([(a.uid[-1], a.license, source.fetch(a, Path(), None).read_bytes()[:4].decode()) for a in source.find()])
"""


def test_the_default_cache_works_without_a_network(hub, tmp_path):
    cache = tmp_path / ".objaverse/hf-objaverse-v1"
    for path, contents in hub.files.items():
        (cache / path).parent.mkdir(parents=True, exist_ok=True)
        (cache / path).write_bytes(contents)
    env = {"HOME": str(tmp_path), "PYTHONPATH": str(PROJECT), "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = subprocess.run([sys.executable, "-c", LIST], env=env, capture_output=True, text=True)
    assert sorted(eval(done.stdout)) == [(f"{i}", LICENSES[i], "glTF") for i in range(8)], done.stderr


def test_a_missing_network_is_one_error_line(tmp_path):
    # A proxy at a closed port stands for a machine without network.
    words = ["objects.limit=1", "objects.retries=1", "objects.backoff=0.1", f"output={tmp_path / 'out'}"]
    done = command("pipeline.render", *words, HOME=str(tmp_path), https_proxy="http://127.0.0.1:9", HF_ENDPOINT="")
    assert done.returncode == 2
    assert done.stderr.startswith("error: objects.endpoint: ")
    assert "https://huggingface.co/" in done.stderr and len(done.stderr.splitlines()) == 1


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def render(hub: Hub, folder: Path, *words: str):
    return command(
        "pipeline.render", "objects=objaverse", f"objects.cache={folder / 'cache'}", f"output={folder / 'views'}",
        "objects.backoff=0.01", "objects.retries=2", "renderer.resolution=32", "renderer.samples=2", "renderer.views=2",
        "cluster.workers=1", "objects_per_shard=5", *words, HF_ENDPOINT=hub.url,
    )  # fmt: skip


NEEDS_BLENDER = pytest.mark.skipif(not importlib.util.find_spec("bpy"), reason="needs Blender, the `render` extra")


@NEEDS_BLENDER
def test_objaverse_renders_end_to_end(hub, tmp_path):
    scans = sorted((PROJECT.parent / "shared/assets/gso").glob("*.glb"), key=os.path.getsize)
    for uid, scan in zip(UIDS, scans[:1], strict=False):  # a scan, if available
        hub.files[f"glbs/000-000/{uid}.glb"] = scan.read_bytes()
    hub.files[f"glbs/000-001/{UIDS[3]}.glb"] = hub.files[f"glbs/000-001/{UIDS[2]}.glb"]
    del hub.files[f"glbs/000-002/{UIDS[4]}.glb"]
    hub.faults[f"glbs/000-000/{UIDS[1]}.glb"] = [503, "truncate"]

    done = render(hub, tmp_path, "objects.lvis=chair,bow_(weapon)", "max_failure_rate=0.3")
    assert done.returncode == 0, done.stderr
    assert "1 of 5 objects have no views: 1 download" in done.stdout
    (manifest,) = read_manifests(str(tmp_path / "views"), "views")
    metas = {uid: json.loads(s["meta.json"]) for uid, s in read_samples(str(tmp_path / "views"), manifest.name)}
    assert {uid: (meta["license"], meta["author"]) for uid, meta in metas.items()} == {
        uid: (LICENSES[i], AUTHORS[i]) for i, uid in enumerate(UIDS[:4])
    }

    table = {row["uid"]: row for row in rows(tmp_path / "views/objects.csv")}
    assert list(table) == [record.uid for record in manifest.records] and set(table) == set(UIDS[:5])
    lost = table[UIDS[4]]
    assert (lost["status"], lost["reason"], lost["author"]) == ("failed", "download", "Zoë 木")
    assert "404" in lost["detail"] and lost["shard"] == "views-000000"
    credits = rows(tmp_path / "views/licenses.csv")
    assert {row["uid"]: row for row in credits} == {
        uid: {"uid": uid, "license": LICENSES[i], "author": AUTHORS[i], "source": f"glbs/000-00{i // 2}/{uid}.glb"}
        for i, uid in enumerate(UIDS[:4])
    }


@NEEDS_BLENDER
@pytest.mark.slow
def test_a_second_run_makes_no_requests(source, hub, tmp_path):
    chosen = source(lvis=["chair"], limit=3)
    for asset in chosen.find():
        (tmp_path / asset.uid).mkdir()
        chosen.fetch(asset, tmp_path / asset.uid, None)
    hub.files.clear()
    done = render(hub, tmp_path, "objects.lvis=chair", "objects.limit=3")
    assert done.returncode == 0, done.stderr
    assert [row["uid"] for row in rows(tmp_path / "views/licenses.csv")] == [asset.uid for asset in chosen.find()]
