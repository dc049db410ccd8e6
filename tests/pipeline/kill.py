"""Kill a run at random, again and again, and see that its shards come out as if nothing had happened.

    python tests/pipeline/kill.py --kills 40

Renders boxes under Ray, once undisturbed and once while Blender processes, Ray workers and the driver are killed with
signal 9, in a seeded order and at seeded times; the same command is given again each time it ends. Exit code 1 if a
tar differs by a byte, an object is lost or an object is there twice.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
import trimesh

PROJECT = Path(__file__).parents[2]
sys.path.insert(0, str(PROJECT))

from pipeline.shards import find_markers  # noqa: E402: a script's own folder comes first otherwise

VICTIMS = {"Blender": "rendering.worker", "Ray worker": "ray::", "driver": "pipeline.render"}


def make_objects(folder: Path, count: int) -> None:
    folder.mkdir()
    for i in range(count):
        trimesh.creation.box((1, 1 + i % 7, 1 + i % 5)).export(folder / f"box{i:03d}.glb")


def start(objects: Path, output: Path, *words: str) -> subprocess.Popen[bytes]:
    """The command under test. A Blender killed twice over one object costs it; `retry` brings it back."""
    settings = ["renderer.resolution=48", "renderer.samples=4", "renderer.views=4", "objects_per_shard=4"]
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.render", "objects=folder", f"objects.path={objects}", f"output={output}"]
        + [*settings, "cluster.workers=2", "retry=[crashed]", *words],
        cwd=PROJECT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def find_victim(driver: psutil.Process, kind: str) -> psutil.Process | None:
    """A process of this kind below the driver, or the driver."""
    if kind == "driver":
        return driver
    try:
        below = driver.children(recursive=True)
        # An idle Ray worker is named ray::IDLE; one at work after its task.
        found = [p for p in below if VICTIMS[kind] in " ".join(p.cmdline()) and "IDLE" not in " ".join(p.cmdline())]
    except psutil.Error:
        return None
    return found[0] if found else None


def kill_at_random(objects: Path, output: Path, kills: int, seed: int) -> Counter[str]:
    """Run the command to its end, over and over, with `kills` kills on the way; how many of each kind there were."""
    rng = random.Random(seed)
    killed: Counter[str] = Counter()
    run = start(objects, output)
    while True:
        kind = rng.choice(list(VICTIMS))
        # From when there is such a process: the driver early and late, the others at any moment of an object's life.
        wait = rng.uniform(0.5, 9) if kind == "driver" else rng.uniform(0.05, 1.5)
        if killed.total() < kills and (victim := _await_victim(run, kind)):
            time.sleep(wait)
            try:
                victim.kill()
                killed[kind] += 1
                print(f"{killed.total():3d} {kind} killed; {len(list(output.glob('views-*.json')))} shards", flush=True)
            except psutil.NoSuchProcess:
                pass
        elif run.poll() is None:
            time.sleep(0.1)
        if run.poll() is not None:
            if run.returncode == 0 and _whole(output):
                return killed
            run = start(objects, output)
