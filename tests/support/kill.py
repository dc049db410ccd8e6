"""Kill a run repeatedly at random and compare its shards with those of an undisturbed run.

    python -m tests.support.kill --kills 40

Renders boxes under Ray, once undisturbed and once while Blender processes, Ray workers and the driver are killed with
SIGKILL, in a seeded order and at seeded times; the command is repeated each time it ends. Exit code 1 if a tar differs
by a byte, or an object is missing or occurs twice.
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
    """Start the command under test; `retry` renders again objects that failed because Blender was killed twice."""
    settings = ["renderer.resolution=48", "renderer.samples=8", "renderer.views=4", "objects_per_shard=5"]
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.render", "objects=folder", f"objects.path={objects}", f"output={output}"]
        + [*settings, "cluster.workers=2", "retry=[crashed]"],
        cwd=PROJECT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def find_victim(driver: psutil.Process, kind: str) -> psutil.Process | None:
    """Return the driver, or a busy child process of the given kind."""
    if kind == "driver":
        return driver
    try:
        # A Ray worker is named after its task.
        return next((p for p in driver.children(recursive=True) if VICTIMS[kind] in " ".join(p.cmdline())), None)
    except psutil.Error:
        return None


def kill_at_random(objects: Path, output: Path, kills: int, seed: int) -> Counter[str]:
    """Repeat the command until all objects are rendered, with `kills` kills; return the number of kills by kind."""
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
            # A quarter of the driver kills happen while Ray starts.
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


def compare(undisturbed: Path, killed: Path) -> list[str]:
    """Return the differences, one sentence each."""
    tars = {path.name: path.read_bytes() for path in sorted(undisturbed.glob("*.tar"))}
    repeated = {path.name: path.read_bytes() for path in sorted(killed.glob("*.tar"))}
    faults = [f"{name} is missing" for name in tars.keys() - repeated.keys()]
    faults += [f"{name} is not expected" for name in repeated.keys() - tars.keys()]
    faults += [f"{name} has other bytes" for name in tars.keys() & repeated.keys() if tars[name] != repeated[name]]
    uids = Counter(uid for manifest in find_manifests(str(killed), "views") for uid in manifest.uids)
    expected = {uid for manifest in find_manifests(str(undisturbed), "views") for uid in manifest.uids}
    faults += [f"object {uid} is missing" for uid in expected - uids.keys()]
    faults += [f"object {uid} occurs {count} times" for uid, count in uids.items() if count > 1]
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40, help="number of kills (40)")
    parser.add_argument("--objects", type=int, default=640, help="number of objects (640)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the processes to kill and the times")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kill-") as folder:
        objects, undisturbed, disturbed = (Path(folder) / name for name in ("objects", "undisturbed", "disturbed"))
        make_objects(objects, arguments.objects)
        if code := start(objects, undisturbed).wait():
            print(f"error: without kills the command ends with exit code {code}", file=sys.stderr)
            return 2
        killed = kill_at_random(objects, disturbed, arguments.kills, arguments.seed)
        faults = compare(undisturbed, disturbed)
        shards = len(find_manifests(str(undisturbed), "views"))
    print(", ".join(f"{count} × {kind}" for kind, count in killed.items()), "killed")
    if killed.total() < arguments.kills:
        faults.append(f"rendering ended after {killed.total()} of {arguments.kills} kills; use more objects")
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    if not faults:
        print(f"{arguments.objects} objects in {shards} shards, byte for byte equal to those without kills")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
