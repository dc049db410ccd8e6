"""Kill a run at random, again and again, and see that its shards come out as if nothing had happened.

    python -m tests.support.kill --kills 40

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

from pipeline.shards import find_manifests

PROJECT = Path(__file__).parents[2]

VICTIMS = {"Blender": "rendering.worker", "Ray worker": "ray::render_shard", "driver": "pipeline.render"}


def make_objects(folder: Path, count: int) -> None:
    folder.mkdir()
    for i in range(count):
        trimesh.creation.box((1, 1 + i % 7, 1 + i % 5)).export(folder / f"box{i:03d}.glb")


def start(objects: Path, output: Path) -> subprocess.Popen[bytes]:
    """The command under test. A Blender killed twice over one object costs it; `retry` brings it back."""
    settings = ["renderer.resolution=48", "renderer.samples=8", "renderer.views=4", "objects_per_shard=5"]
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.render", "objects=folder", f"objects.path={objects}", f"output={output}"]
        + [*settings, "cluster.workers=2", "retry=[crashed]"],
        cwd=PROJECT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def find_victim(driver: psutil.Process, kind: str) -> psutil.Process | None:
    """The driver, or a process of the other kinds below it that is at work."""
    if kind == "driver":
        return driver
    try:
        # A Ray worker is named after its task.
        return next((p for p in driver.children(recursive=True) if VICTIMS[kind] in " ".join(p.cmdline())), None)
    except psutil.Error:
        return None


def kill_at_random(objects: Path, output: Path, kills: int, seed: int) -> Counter[str]:
    """Give the command until all objects are rendered, with `kills` kills on the way; how many of each kind."""
    rng = random.Random(seed)
    killed: Counter[str] = Counter()
    while True:
        run = start(objects, output)
        driver = psutil.Process(run.pid)
        while run.poll() is None:
            if killed.total() == kills:
                run.wait()
                break
            kind = rng.choice(list(VICTIMS))
            # The driver dies once while it starts Ray for three times while objects are rendered.
            early = kind == "driver" and rng.random() < 0.25
            while not early and run.poll() is None and not find_victim(driver, "Blender"):
                time.sleep(0.05)
            time.sleep(rng.uniform(0, 6))
            if run.poll() is None and (victim := find_victim(driver, kind)):
                victim.kill()
                killed[kind] += 1
                done = len(list(output.glob("views-*.json")))
                print(f"{killed.total():3d}: {kind} killed; {done} shards are committed", flush=True)
        records = [record for manifest in find_manifests(str(output), "views") for record in manifest.records]
        if run.returncode == 0 and all(record.status == "ok" for record in records):
            return killed


def compare(calm: Path, killed: Path) -> list[str]:
    """What is different, as sentences."""
    tars = {path.name: path.read_bytes() for path in sorted(calm.glob("*.tar"))}
    again = {path.name: path.read_bytes() for path in sorted(killed.glob("*.tar"))}
    faults = [f"{name} is missing" for name in tars.keys() - again.keys()]
    faults += [f"{name} should not be there" for name in again.keys() - tars.keys()]
    faults += [f"{name} has other bytes" for name in tars.keys() & again.keys() if tars[name] != again[name]]
    uids = Counter(uid for manifest in find_manifests(str(killed), "views") for uid in manifest.uids)
    expected = {uid for manifest in find_manifests(str(calm), "views") for uid in manifest.uids}
    faults += [f"object {uid} is lost" for uid in expected - uids.keys()]
    faults += [f"object {uid} is there {count} times" for uid, count in uids.items() if count > 1]
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40, help="how often to kill (default 40)")
    parser.add_argument("--objects", type=int, default=400, help="how many objects to render (default 400)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other victims at other times")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kill-") as folder:
        objects, calm, disturbed = (Path(folder) / name for name in ("objects", "calm", "disturbed"))
        make_objects(objects, asked.objects)
        if code := start(objects, calm).wait():
            print(f"error: undisturbed, the command ends with exit code {code}", file=sys.stderr)
            return 2
        killed = kill_at_random(objects, disturbed, asked.kills, asked.seed)
        faults = compare(calm, disturbed)
        shards = len(find_manifests(str(calm), "views"))
    print(", ".join(f"{count} × {kind}" for kind, count in killed.items()), "killed")
    if killed.total() < asked.kills:
        faults.append(f"all was rendered after {killed.total()} of {asked.kills} kills; give it more objects")
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    if not faults:
        print(f"{asked.objects} objects in {shards} shards, each byte for byte as without a kill")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
