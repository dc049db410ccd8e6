"""Outputs with foreign files, outputs that overlap the input, and locked outputs."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from conf.options import UserError
from pipeline import export, inspect, output, pack
from pipeline.config import ExportConfig, InspectConfig, PackConfig, RenderConfig
from pipeline.output import FolderLayout, claimed, locked, require_apart, require_own_file, require_own_folder
from pipeline.samples import npy_bytes
from pipeline.shards import ObjectRecord, write_shard
from pipeline.sources import FolderObjects
from pipeline.storage import sweep, write_atomically
from tests.support.command import PROJECT

LAYOUT = FolderLayout("plan.json", lambda contents: contents == b"own", r"plan\.json|\d+\.png")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def views(tmp_path) -> Path:
    """Write one committed shard of one object without pictures."""
    sample = {
        "cameras.npy": npy_bytes(np.zeros((0, 3, 4))),
        "meta.json": b'{"source": "", "license": "", "resolution": 8}',
    }
    write_shard(str(tmp_path / "views"), "views-000000", [("a", sample)], [ObjectRecord("a", "ok")])
    return tmp_path / "views"


@pytest.mark.parametrize(
    ("output", "source", "nested", "refused"),
    [
        ("in", "in", False, True),
        ("in/", "./in", False, True),
        ("link", "in", False, True),
        ("in/deep/..", "in", False, True),
        ("in/new/er", "in", True, True),
        ("link/new", "in", True, True),
        (".", "in", True, True),
        ("in/new", "in", False, False),
        ("in2", "in", True, False),  # a longer name is not a subfolder
        ("out", "in", True, False),
        ("memory://b/views/", "memory://b/views", False, True),
        ("memory://b/views/x", "memory://b/views", True, True),
        ("memory://b/views2", "memory://b/views", True, False),
    ],
)
def test_an_output_inside_or_around_the_input_is_refused(output, source, nested, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in/deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to("in")
    for path in (source, str(tmp_path / source) if "://" not in source else source):
        if refused:
            with pytest.raises(UserError, match=f"^output={output}: .*path="):
                require_apart(output, path, "path", nested)
        else:
            require_apart(output, path, "path", nested)


@pytest.mark.parametrize("root", ["{tmp}/out", "memory://outputs/{tmp}"])
def test_a_folder_is_accepted_if_new_or_with_the_record_of_the_command(root, tmp_path):
    url = root.format(tmp=tmp_path)
    require_own_folder(url, LAYOUT)
    write_atomically(f"{url}/notes.txt", b"mine")
    require_own_folder(url, LAYOUT)  # the command writes no such name
    write_atomically(f"{url}/001.png", b"mine")
    with pytest.raises(UserError, match=r"^output=.*: .*001\.png"):
        require_own_folder(url, LAYOUT)
    write_atomically(f"{url}/plan.json", b"of another command")
    with pytest.raises(UserError, match="output=.*plan.json"):
        require_own_folder(url, LAYOUT)
    write_atomically(f"{url}/plan.json", b"own")
    require_own_folder(url, LAYOUT)


@pytest.mark.parametrize("root", ["{tmp}/out", "memory://files/{tmp}"])
def test_a_file_is_accepted_if_new_or_with_the_mark_of_the_command(root, tmp_path):
    url, is_own = root.format(tmp=tmp_path) + "/page", lambda edges: b"own" in edges
    require_own_file(url, is_own)
    for text, own in ((b"", True), (b"own" + bytes(9999), True), (bytes(9999) + b"own", True), (b"foreign", False)):
        write_atomically(url, text)
        if own:
            require_own_file(url, is_own)
        else:
            with pytest.raises(UserError, match=r"^output=.*page: "):
                require_own_file(url, is_own)
    if "://" not in url:
        with pytest.raises(UserError, match="output="):
            require_own_file(str(Path(url).parent), is_own)


HOLDER = """
import os, sys, time
from pipeline.output import locked
with locked(sys.argv[1]):
    if not os.fork():  # like a worker process that outlives its parent
        time.sleep(60)
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_locked_output_refuses_a_second_process(tmp_path):
    output = tmp_path / "deep/out"
    words = [sys.executable, "-c", HOLDER, output]
    holder = subprocess.Popen(words, cwd=PROJECT, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert holder.stdout and holder.stdout.readline() == "held\n"
        sentence = f"^output={output}/: process {holder.pid} on .* is writing there"
        with pytest.raises(UserError, match=sentence), locked(f"{output}/"):
            pass
        (tmp_path / "link").symlink_to(output)
        with pytest.raises(UserError, match=f"process {holder.pid}"), locked(str(tmp_path / "link")):
            pass
        holder.kill()
        holder.wait()
        with claimed(str(output), LAYOUT):
            (output / "001.png").write_bytes(b"written")
        assert os.listdir(output) == ["001.png"]
    finally:
        os.killpg(holder.pid, signal.SIGKILL)


def test_a_command_that_writes_nothing_leaves_no_folder(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(str(tmp_path / "deep/out")):
        1 / 0  # noqa: B018
    assert os.listdir(tmp_path) == []
    (tmp_path / "out").mkdir()
    with locked(str(tmp_path / "out")):
        pass
    assert os.listdir(tmp_path) == ["out"]


def test_files_that_another_machine_wrote_to_its_own_folder_are_missed(tmp_path, monkeypatch):
    monkeypatch.setattr(output, "SHARING_WAIT_S", 2.0)
    names = ["views-000000.json", "views-000001.json"]
    (tmp_path / names[0]).touch()
    with pytest.raises(UserError, match=r"output=.*views-000001.json"):
        output.require_shared(str(tmp_path), names)
    threading.Timer(0.5, (tmp_path / names[1]).touch).start()  # shown late by the file system
    output.require_shared(str(tmp_path), names)


def test_an_output_that_links_to_nowhere_is_named(tmp_path):
    (tmp_path / "out").symlink_to(tmp_path / "unmounted")
    with pytest.raises(UserError, match=f"output={tmp_path}/out: {tmp_path}/out is not"), locked(f"{tmp_path}/out"):
        pass


def test_leftovers_of_writers_are_removed_and_other_part_files_stay(tmp_path):
    for name in ("views-000000.tar.0a1b2c3d.part", "film.mkv.part"):
        (tmp_path / name).touch()
    sweep(str(tmp_path))
    assert os.listdir(tmp_path) == ["film.mkv.part"]


@pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="needs Ray")
@pytest.mark.parametrize("output", ["objects", "objects/out", "."])
def test_rendering_refuses_the_folder_of_the_objects(output, tmp_path):
    from pipeline import render

    (tmp_path / "objects").mkdir()
    (tmp_path / "objects/objects.csv").write_text("uid,path\na,a.obj\n")
    (tmp_path / "objects/a.obj").write_text("v 0 0 0\n")
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"objects\.path="):
        render.main(RenderConfig(FolderObjects(str(tmp_path / "objects")), str(tmp_path / output)))
    assert contents(tmp_path) == before and sorted(os.listdir(tmp_path / "objects")) == ["a.obj", "objects.csv"]


@pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="needs Ray")
@pytest.mark.parametrize("name", ["objects.csv", "licenses.csv", "plan.json", "views-000000.tar", "progress.json"])
def test_rendering_refuses_foreign_tables_and_shards(name, tmp_path):
    from pipeline import render

    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("{}")
    (tmp_path / "objects").mkdir()
    (tmp_path / "objects/a.obj").write_text("v 0 0 0\n")
    before = contents(tmp_path)
    with pytest.raises(UserError, match=f"output=.*{name}"):
        render.main(RenderConfig(FolderObjects(str(tmp_path / "objects")), str(tmp_path / "out")))
    assert contents(tmp_path) == before


def test_packing_refuses_the_output_of_another_command(folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/plan.json").write_text(json.dumps({"objects": 1, "listing": "", "renderer.views": 4}))
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"output=.*plan\.json"):
        pack.main(PackConfig(str(folder), str(tmp_path / "out"), workers=1))
    for inside in (folder, folder / "out"):
        with pytest.raises(UserError, match="path="):
            pack.main(PackConfig(str(folder), str(inside), workers=1))
    assert contents(tmp_path) == before and not (folder / "out").exists()


def test_an_export_refuses_a_foreign_plan(shards, tmp_path):
    for plan in ("[]", "{}", '{"name": "a package"}', "{"):
        (tmp_path / "export.json").write_text(plan)
        with pytest.raises(UserError, match=r"output=.*export\.json"):
            export.main(ExportConfig(str(shards), str(tmp_path), workers=1))
        assert (tmp_path / "export.json").read_text() == plan


def test_a_page_replaces_only_pages_of_its_own_command(views, tmp_path):
    page = views / "index.html"
    page.write_text("<!doctype html><title>Views in my garden</title>")
    with pytest.raises(UserError, match=r"index\.html"):
        inspect.main(InspectConfig(str(views)))
    assert "garden" in page.read_text()
    page.unlink()
    inspect.main(InspectConfig(str(views)))
    first = page.read_text()
    inspect.main(InspectConfig(str(views)))
    generator = '<meta name="generator" content="Zero-1-to-3 pipeline.inspect">'
    assert page.read_text() == first and generator in first
    page.write_text(first.replace(generator, ""))  # as written by earlier versions
    inspect.main(InspectConfig(str(views)))
    assert page.read_text() == first
