"""Objects that cannot be rendered fail with their reason, and Blender remains usable."""

import os
import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import trimesh
from PIL import Image

from conf.options import FieldError
from rendering import blender_process
from rendering.blender_process import BlenderProcess
from rendering.failure import RenderFailure
from rendering.limits import Limits
from rendering.settings import RenderSettings
from tests.support.bad_assets import changed, put


def reason(render, path, **settings) -> str:
    with pytest.raises(RenderFailure) as failure:
        render(path, **settings)
    assert failure.value.detail
    return failure.value.reason


@pytest.mark.parametrize("name", ["noise.glb", "noise.fbx", "noise.ply", "noise.usdc", "noise.blend", "noise"])
def test_noise_is_unreadable(render, tmp_path, name):
    (tmp_path / name).write_bytes(np.random.default_rng(0).bytes(5000))
    assert reason(render, tmp_path / name) == "unreadable"


def test_the_detail_of_a_failed_import_is_the_error_of_the_importer(render, tmp_path):
    (tmp_path / "no_scene.glb").write_bytes(changed(put(scenes=[])))  # `scene` is 0
    with pytest.raises(RenderFailure) as failure:
        render(tmp_path / "no_scene.glb")
    assert failure.value.reason == "unreadable"
    assert "IndexError" in failure.value.detail


def test_a_truncated_file_is_unreadable(render, corner, tmp_path):
    (tmp_path / "half.glb").write_bytes(corner.read_bytes()[: corner.stat().st_size // 2])
    assert reason(render, tmp_path / "half.glb") == "unreadable"


def test_points_without_faces_are_no_mesh(render, tmp_path):
    trimesh.PointCloud(np.random.default_rng(0).normal(size=(50, 3))).export(tmp_path / "points.ply")
    assert reason(render, tmp_path / "points.ply") == "no_mesh"


@pytest.mark.parametrize("points", [np.zeros((3, 3)), np.eye(3) * 1e30])
def test_a_mesh_without_a_usable_extent_is_degenerate(render, tmp_path, points):
    trimesh.Trimesh(points, [[0, 1, 2]], process=False).export(tmp_path / "triangle.ply")
    assert reason(render, tmp_path / "triangle.ply") == "degenerate"


def test_an_invisible_object_is_blank(render, tmp_path):
    material = trimesh.visual.material.PBRMaterial(baseColorFactor=[255, 255, 255, 0], alphaMode="BLEND")
    box = trimesh.creation.box()
    box.visual = trimesh.visual.TextureVisuals(material=material)
    box.export(tmp_path / "glass.glb")
    assert reason(render, tmp_path / "glass.glb") == "blank"


def test_a_file_that_does_not_exist_is_missing(render, tmp_path):
    assert reason(render, tmp_path / "nothing.glb") == "missing"


def test_a_link_to_itself_and_an_impossible_name_are_missing(render, tmp_path):
    (tmp_path / "ring.glb").symlink_to(tmp_path / "ring.glb")
    assert reason(render, tmp_path / "ring.glb") == "missing"
    assert reason(render, tmp_path / "a\0b.glb") == "missing"


def test_a_slow_object_is_a_timeout_and_the_next_object_renders(render, corner):
    with BlenderProcess(Limits(seconds=3)) as renderer:
        good = render(corner, renderer=renderer)
        assert reason(render, corner, renderer=renderer, samples=60000, noise=0.0) == "timeout"
        assert render(corner, renderer=renderer).files == good.files


def test_after_a_first_crash_the_object_is_rendered_again(render, corner):
    with BlenderProcess() as renderer:
        good = render(corner, renderer=renderer, samples=64, noise=0.0)
        first = renderer._process.pid
        threading.Timer(0.5, os.kill, (first, signal.SIGKILL)).start()
        again = render(corner, renderer=renderer, samples=64, noise=0.0)
        assert renderer._process.pid != first, "it was not killed"
        assert again.files == good.files


@pytest.mark.slow
def test_a_second_crash_is_a_failure_and_the_next_object_renders(render, corner):
    def kill() -> None:
        while not over.wait(5):
            os.kill(renderer._process.pid, signal.SIGKILL)

    over = threading.Event()
    with BlenderProcess(Limits(seconds=60)) as renderer:
        good = render(corner, renderer=renderer)
        killer = threading.Thread(target=kill)
        killer.start()
        assert reason(render, corner, renderer=renderer, samples=60000, noise=0.0) == "crashed"
        over.set()
        killer.join()
        assert render(corner, renderer=renderer).files == good.files


def greedy(folder, pictures) -> Path:
    """Return an OBJ with small texture files that take a quarter of a gigabyte each in memory."""
    Image.new("RGB", (8192, 8192), (200, 40, 40)).save(folder / "0.png")
    faces, materials = [], []
    for i in range(pictures):
        if i:
            shutil.copy(folder / "0.png", folder / f"{i}.png")
        materials.append(f"newmtl m{i}\nmap_Kd {i}.png\n")
        faces.append(f"usemtl m{i}\nv {i} 0 0\nv {i} 1 0\nv {i} 1 {i + 1}\nvt 0 {i / 9}\n")
        faces.append(f"f {3 * i + 1}/{i + 1} {3 * i + 2}/{i + 1} {3 * i + 3}/{i + 1}\n")
    (folder / "greedy.mtl").write_text("".join(materials))
    (folder / "greedy.obj").write_text("mtllib greedy.mtl\n" + "".join(faces))
    return folder / "greedy.obj"


def test_too_much_memory_is_a_failure_and_the_next_object_renders(render, corner, tmp_path):
    with BlenderProcess(Limits(gigabytes=1)) as renderer:
        good = render(corner, renderer=renderer)
        assert reason(render, greedy(tmp_path, 6), renderer=renderer) == "memory"
        assert render(corner, renderer=renderer).files == good.files


@pytest.mark.slow
def test_blender_is_restarted_if_it_keeps_much_memory(render, corner, tmp_path):
    with BlenderProcess(Limits(gigabytes=4)) as renderer:
        render(corner, renderer=renderer, resolution=16, views=1)
        assert renderer._process
        render(greedy(tmp_path, 6), renderer=renderer, resolution=16, views=1)
        assert not renderer._process


def test_blender_is_restarted_after_limits_objects(render, corner):
    with BlenderProcess(Limits(objects=2)) as renderer:
        pids = []
        for _ in range(5):
            render(corner, renderer=renderer, resolution=16, views=1)
            pids.append(renderer._process.pid if renderer._process else None)
    assert pids[0] and pids[2] and pids[4] and len({pids[0], pids[2], pids[4]}) == 3
    assert pids[1] is None and pids[3] is None


@pytest.mark.parametrize("device", ["cuda", "optix"])
def test_a_gpu_that_does_not_exist_is_refused(render, corner, device):
    with pytest.raises(FieldError, match=f"device={device}"):
        render(corner, device=device)


def test_auto_records_the_device_that_was_used(render, corner):
    assert render(corner, device="auto", views=1, resolution=16).meta["device"] == "cpu"


def test_one_thread_uses_at_most_one_core(corner, tmp_path):
    """Without the limit, TBB spins a thread on every core."""
    with BlenderProcess(Limits(threads=1)) as renderer:
        renderer.render(corner, RenderSettings(resolution=16, samples=1, views=1), 0, tmp_path)
        cores = os.sched_getaffinity(renderer._process.pid)
        start = time.monotonic()
        rendered = renderer.render(corner, RenderSettings(resolution=256, samples=64, noise=0.0, views=1), 0, tmp_path)
        assert rendered.cpu < 1.2 * (time.monotonic() - start)
    assert cores == os.sched_getaffinity(0)  # and it may run on any


def test_a_killed_blender_leaves_no_temporary_folder(corner, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "views").mkdir()
    with BlenderProcess() as blender:
        blender.render(corner, RenderSettings(resolution=16, views=1, samples=1), 0, tmp_path / "views")
        assert list(tmp_path.glob("*/blender-*/blender_*"))
    assert not list(tmp_path.rglob("blender*"))


def test_links_into_any_number_of_folders_are_rendered(corner, tmp_path, monkeypatch):
    """The readable folders are arguments of Blender's process, whose command line has a maximum length."""
    for name in ("scratch", "objects", *(f"store/{number}" for number in range(5))):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    monkeypatch.setattr(blender_process, "MAX_EARLIER_ROOTS", 2, raising=False)
    settings = RenderSettings(resolution=16, samples=1, views=1)
    with BlenderProcess() as renderer:
        for number in (0, 1, 2, 3, 4, 4, 0):
            link = tmp_path / f"objects/{number}.glb"
            if not link.is_symlink():
                shutil.copy(corner, tmp_path / f"store/{number}/a.glb")
                link.symlink_to(tmp_path / f"store/{number}/a.glb")
            with tempfile.TemporaryDirectory() as folder:
                renderer.render(link, settings, 0, Path(folder), root=tmp_path / "objects")
        folders = psutil.Process(renderer._process.pid).cmdline()[-5:]
    assert folders == [
        str(tmp_path.resolve() / name) for name in ("scratch", "store/3", "store/4", "objects", "store/0")
    ]
