"""The rendering stage with real Ray and Blender, including killed processes."""

import csv
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trimesh
from PIL import Image

from pipeline.samples import read_samples, view_names
from pipeline.shards import read_manifests
from tests.support.command import PROJECT, command

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("bpy"), reason="needs Blender, the `render` extra")

SMALL = [
    "renderer.resolution=32",
    "renderer.samples=2",
    "renderer.views=3",
    "cluster.workers=2",
    "max_failure_rate=0.3",
    "wandb.mode=disabled",
]

MARK = f"test_render-{os.getpid()}"


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    """Return a folder of five valid objects, a file of noise and one of points only."""
    folder = tmp_path_factory.mktemp("objects")
    for i in range(5):
        box = trimesh.creation.box((1, 1 + i, 2))
        box.export(folder / f"box{i}.glb")
    (folder / "box2_noise.glb").write_bytes(b"no glTF at all")
    trimesh.PointCloud([[0, 0, 0], [1, 1, 1]]).export(folder / "points.ply")
    return folder


def render(objects, output, *words):
    return command("pipeline.render", "objects=folder", f"objects.path={objects}", f"output={output}", *SMALL, *words)


def tars(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tar"))}


@pytest.fixture(scope="module", autouse=True)
def marked():
    """Mark the processes of this file in their environment; tests of other files run in parallel."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RENDERED_BY", MARK)
        yield


@pytest.fixture(scope="module")
def views(objects, tmp_path_factory):
    output = tmp_path_factory.mktemp("run") / "views"
    done = render(objects, output, "objects_per_shard=3")
    assert done.returncode == 0, done.stderr
    assert "2 of 7 objects have no views: 1 no_mesh, 1 unreadable" in done.stdout
    assert done.stdout.splitlines()[-1] == f"views of 5 objects in {output}"
    return output


def test_every_object_ends_with_views_or_a_reason(views):
    manifests = read_manifests(str(views), "views")
    assert [manifest.name for manifest in manifests] == ["views-000000", "views-000001", "views-000002"]
    records = {record.uid: record for manifest in manifests for record in manifest.records}
    assert list(records) == ["box0", "box1", "box2", "box2_noise", "box3", "box4", "points"]
    assert records["box2_noise"].reason == "unreadable" and ".glb" in records["box2_noise"].detail
    assert records["points"].reason == "no_mesh"
    assert all(record.seconds > 0 for record in records.values())
    # A shard without pictures is committed too.
    assert manifests[2].uids == [] and list(read_samples(str(views), "views-000002")) == []


def test_meta_json_reproduces_the_views(views):
    ((_, sample), *_) = read_samples(str(views), "views-000000")
    meta = json.loads(sample["meta.json"])
    assert meta["uid"] == "box0" and meta["source"] == "box0.glb" and len(meta["sha256"]) == 64
    assert meta["resolution"] == 32 and meta["fov_deg"] == pytest.approx(49.134, abs=1e-3)
    assert meta["scale"] == pytest.approx(0.5) and meta["offset"] == pytest.approx([0, 0, 0], abs=1e-6)
    assert meta["renderer"]["view_transform"] == "Filmic" and meta["blender"].startswith("4.5")


def test_samples_do_not_depend_on_shards_and_workers(views, objects, tmp_path):
    assert render(objects, tmp_path / "one", "objects_per_shard=7", "cluster.workers=1").returncode == 0
    together = dict(read_samples(str(tmp_path / "one"), "views-000000"))
    apart = {uid: s for m in read_manifests(str(views), "views") for uid, s in read_samples(str(views), m.name)}
    assert together == apart


def test_an_interrupted_or_killed_run_resumes_with_equal_bytes(views, objects, tmp_path):
    output = tmp_path / "views"
    words = ["objects=folder", f"objects.path={objects}", f"output={output}", *SMALL, "objects_per_shard=3"]
    for shards, end in ((1, signal.SIGTERM), (2, signal.SIGKILL)):
        driver = subprocess.Popen(
            [sys.executable, "-m", "pipeline.render", *words], cwd=PROJECT, stderr=subprocess.PIPE, text=True
        )
        while len(list(output.glob("views-*.json"))) < shards:
            assert driver.poll() is None
            time.sleep(0.02)
        driver.send_signal(end)
        said = driver.communicate()[1]
        if end is signal.SIGTERM:
            assert driver.returncode == 128 + end and "Stack" not in said and "Traceback" not in said
            assert said.splitlines()[-1] == "stopped; repeat the command to continue"
            assert not list(output.glob("*.part"))
    before = {path.name: path.stat().st_mtime_ns for path in output.glob("views-*.json")}
    done = render(objects, output, "objects_per_shard=3")
    assert done.returncode == 0, done.stderr
    assert tars(output) == tars(views)
    assert all((output / name).stat().st_mtime_ns == written for name, written in before.items())


@pytest.fixture(scope="module")
def unusual(objects, tmp_path_factory):
    """Render a folder with unusual names, one of them not UTF-8, and a linked folder with pictures beside its models.

    Every pass is rendered; the same command is given twice and finds the same plan.
    """
    tmp_path = tmp_path_factory.mktemp("unusual")
    folder, box = tmp_path / "objects", (objects / "box0.glb").read_bytes()
    for name in ("椅子.glb".encode(), "机器.glb".encode(), b"caf\xe9.glb", b"._a.glb", b"__MACOSX/a.glb"):
        path = os.path.join(os.fsencode(folder), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Path(os.fsdecode(path)).write_bytes(box if b"caf" not in name and b"a.glb" not in name else b"")
    models = tmp_path / "ShapeNet/02691156/1a04/models"
    models.mkdir(parents=True)
    (models.parent / "images").mkdir()
    Image.new("RGB", (8, 8), (0, 0, 255)).save(models.parent / "images/t.png")
    (models / "m.mtl").write_text("newmtl m\nmap_Kd ../images/t.png\n")
    (models / "m.obj").write_text("mtllib m.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 1\nvt 0 0\nusemtl m\nf 1/1 2/1 3/1\n")
    (folder / "linked").symlink_to(tmp_path / "ShapeNet")
    done = render(folder, tmp_path / "views", "renderer.passes=depth,normal,mask,albedo")
    assert done.returncode == 0, done.stderr
    same_plan = render(folder, tmp_path / "views", "renderer.passes=depth,normal,mask,albedo")
    assert same_plan.returncode == 0, same_plan.stderr
    return tmp_path / "views"


def test_a_folder_with_unusual_names_and_links_is_rendered(unusual):
    with open(unusual / "objects.csv", encoding="utf-8", newline="") as file:
        rows = {row["source"]: row for row in csv.DictReader(file)}
    assert {source: row["reason"] for source, row in rows.items()} == {
        "caf\\xe9.glb": "unreadable", "linked/02691156/1a04/models/m.obj": "", "机器.glb": "", "椅子.glb": "",
    }  # fmt: skip


def test_a_shard_contains_the_passes(unusual):
    (manifest, *_) = (found for found in read_manifests(str(unusual), "views") if found.uids)
    for _, sample in read_samples(str(unusual), manifest.name):
        assert {"000.webp", "000.depth.png", "000.normal.webp", "000.mask.png", "000.albedo.webp"} < set(sample)
        assert view_names(sample) == ["000.webp", "001.webp", "002.webp"]
    assert command("pipeline.verify", f"path={unusual}").returncode == 0


def test_a_finished_run_is_not_repeated(views, objects):
    start = time.monotonic()
    done = render(objects, views, "objects_per_shard=3")
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == f"views of 5 objects in {views}"
    assert "objects/s" not in done.stdout and time.monotonic() - start < 30


def test_a_run_is_not_resumed_with_other_settings(views, objects):
    for words, named in (
        (["objects_per_shard=3", "renderer.samples=3"], "renderer.samples=2, now 3"),
        (["objects_per_shard=3", "seed=1"], "seed=0, now 1"),
        (["objects_per_shard=2"], "shards=3, now 4"),
    ):
        done = render(objects, views, *words)
        assert done.returncode == 2
        assert done.stderr == f"error: output={views}: its shards were made with {named}; choose another folder\n"


@pytest.mark.slow
def test_retry_renders_only_objects_that_failed_for_that_reason(objects, tmp_path):
    """After one object is repaired, the shard equals that of a run over the repaired folder."""
    folder = tmp_path / "objects"
    folder.mkdir()
    for name in ("box0.glb", "box2_noise.glb", "box4.glb", "points.ply"):
        shutil.copy(objects / name, folder)
    words = ["objects_per_shard=2", "max_failure_rate=0.5"]
    assert render(folder, tmp_path / "views", *words).returncode == 0
    before = tars(tmp_path / "views")
    shutil.copy(folder / "box4.glb", folder / "box2_noise.glb")
    again = render(folder, tmp_path / "views", *words, "retry=unreadable,timeout")
    assert again.returncode == 0 and "1 objects to render in 1 shards" in again.stdout, again.stderr
    assert "1 of 4 objects have no views: 1 no_mesh" in again.stdout
    assert render(folder, tmp_path / "fresh", *words).returncode == 0
    after = tars(tmp_path / "views")
    assert after == tars(tmp_path / "fresh") != before
    assert command("pipeline.verify", f"path={tmp_path / 'views'}").returncode == 0
    # The repaired object equals box 4.
    objects_csv = (tmp_path / "views/objects.csv").read_text()
    assert re.search(r"^box4,.*,box2_noise,", objects_csv, re.MULTILINE), objects_csv


def test_a_run_above_max_failure_rate_exits_with_1(views, objects):
    done = render(objects, views, "objects_per_shard=3", "max_failure_rate=0.2")
    assert done.returncode == 1
    assert "error: 29% of the objects failed, max_failure_rate=0.2 allows 20%" in done.stderr


def test_verify_finds_the_damaged_shard(views, tmp_path):
    good = command("pipeline.verify", f"path={views}")
    assert good.returncode == 0 and "0 of 3 shards damaged; 5 objects" in good.stdout
    copy = tmp_path / "views"
    subprocess.run(["cp", "-r", views, copy], check=True)
    tar = copy / "views-000001.tar"
    tar.write_bytes(tar.read_bytes()[:-2000])
    (copy / "views-000009.tar").write_bytes(b"of a run that was killed")
    bad = command("pipeline.verify", f"path={copy}")
    assert bad.returncode == 1
    assert "views-000001: the tar has" in bad.stdout and "1 of 3 shards damaged" in bad.stdout
    assert "1 tars without a manifest" in bad.stdout and "views-000009" in bad.stdout


def test_verify_reports_missing_shards_of_the_plan(views, tmp_path):
    subprocess.run(["cp", "-r", views, tmp_path / "views"], check=True)
    for path in (tmp_path / "views").glob("views-000001.*"):
        path.unlink()
    done = command("pipeline.verify", f"path={tmp_path / 'views'}")
    assert done.returncode == 1
    assert "1 shards of the plan are missing" in done.stdout and "0 of 2 shards damaged" in done.stdout


def test_a_damaged_shard_has_no_contact_sheet(views, tmp_path):
    subprocess.run(["cp", "-r", views, tmp_path / "views"], check=True)
    (tmp_path / "views/views-000000.tar").write_bytes(b"noise" * 1000)
    done = command("pipeline.inspect", f"path={tmp_path / 'views'}")
    assert done.returncode == 2 and "views-000000.tar is missing or damaged" in done.stderr
    assert not (tmp_path / "views/index.html").exists()


def test_the_contact_sheet_shows_every_view_and_every_failure(views, tmp_path):
    page = tmp_path / "sheet.html"
    done = command("pipeline.inspect", f"path={views}", f"output={page}")
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == f"contact sheet: {page}"
    html = page.read_text()
    assert html.count("data:image/webp;base64,") == 5 * 3
    assert "box2_noise" in html and "no_mesh" in html
    assert "http" not in html.replace("http-equiv", "")  # self-contained


def test_a_run_leaves_no_temporary_files(objects, tmp_path):
    (tmp_path / "scratch").mkdir()
    words = [f"objects.path={objects}", "objects.limit=2", f"output={tmp_path / 'views'}", *SMALL]
    done = command("pipeline.render", "objects=folder", *words, TMPDIR=str(tmp_path / "scratch"))
    assert done.returncode == 0, done.stderr
    assert set(os.listdir(tmp_path / "scratch")) <= {"ray"}


# Run a module in a process for which the kernel has no Landlock (a seccomp filter of its first system call).
WITHOUT_LANDLOCK = """
import ctypes, runpy, struct, sys
LOAD_NUMBER, RETURN = (0x20, 0, 0, 0), 0x06
rules = LOAD_NUMBER, (0x15, 0, 1, 444), (RETURN, 0, 0, 0x50000 | 38), (RETURN, 0, 0, 0x7FFF0000)
class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("rules", ctypes.c_char_p)]
libc = ctypes.CDLL(None)
code = b"".join(struct.pack("<HBBI", *rule) for rule in rules)
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(Filter(len(rules), code))):
    sys.exit(77)
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__")
"""


def test_a_kernel_without_landlock_is_reported(objects, tmp_path):
    words = [f"objects.path={objects}", "objects.limit=1", f"output={tmp_path / 'views'}", *SMALL]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_LANDLOCK, "pipeline.render", "objects=folder", *words],
        cwd=PROJECT, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode == 77:
        pytest.skip("this kernel has no seccomp filters")
    assert done.returncode == 0, done.stderr
    assert "Landlock" in done.stderr and "Landlock" not in render(objects, tmp_path / "views", "objects.limit=1").stderr


def test_no_blender_process_outlives_its_run(views):
    """Processes left over by the killed run above would be listed here."""
    for _ in range(50):
        alive = [p for p in Path("/proc").glob("[0-9]*/cmdline") if b"rendering.worker" in _read(p)]
        mine = [p for p in alive if MARK.encode() in _environ(p)]
        if not mine:
            return
        time.sleep(0.1)
    raise AssertionError(f"still running: {mine}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _environ(path: Path) -> bytes:
    return _read(path.with_name("environ"))
