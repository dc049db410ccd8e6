"""Memory of all processes of a run over five hundred objects."""

import importlib.util
import statistics
import subprocess
import sys
import time

import psutil
import pytest
import trimesh

from tests.support.command import PROJECT

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("bpy"), reason="needs Blender, the `render` extra")

NAMES = {"child": "rendering.worker", "worker": "ray::render_shard", "driver": "pipeline.render"}


def memory(driver: psutil.Process) -> dict[str, int]:
    """Return resident bytes by kind of process."""
    found = {}
    for process in (driver, *driver.children(recursive=True)):
        try:
            words = " ".join(process.cmdline())
            found.update({name: process.memory_info().rss for name, word in NAMES.items() if word in words})
        except psutil.Error:
            continue
    return found


@pytest.mark.slow
@pytest.mark.parametrize("objects_per_child", [200, 1000])
def test_memory_does_not_grow_after_the_hundredth_object(tmp_path, objects_per_child):
    """Test the default number of objects per Blender process, and one process for all objects."""
    (tmp_path / "objects").mkdir()
    for i in range(500):
        trimesh.creation.icosphere(i % 3).export(tmp_path / f"objects/ball{i:03d}.glb")
    words = ["objects=folder", f"objects.path={tmp_path / 'objects'}", f"output={tmp_path / 'views'}"]
    words += ["renderer.resolution=32", "renderer.samples=1", "renderer.denoise=none", "renderer.views=2"]
    words += ["cluster.workers=1", "objects_per_shard=20", f"limits.objects={objects_per_child}"]
    run = subprocess.Popen([sys.executable, "-m", "pipeline.render", *words], cwd=PROJECT, stderr=subprocess.DEVNULL)
    driver, samples = psutil.Process(run.pid), []
    while run.poll() is None:
        samples.append((20 * len(list((tmp_path / "views").glob("views-*.json"))), memory(driver)))
        time.sleep(0.2)
    assert run.returncode == 0
    for name in NAMES:
        early = [found[name] for objects, found in samples if 80 <= objects < 180 and name in found]
        late = [found[name] for objects, found in samples if objects >= 400 and name in found]
        before, after = statistics.median(early), statistics.median(late)
        print(f"{name}: {before / 2**20:.0f} MiB at 100 objects, {after / 2**20:.0f} MiB at 500")
        assert after < 1.1 * before, name
