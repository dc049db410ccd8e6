# SPDX-License-Identifier: GPL-3.0-or-later
"""The child process that holds Blender: requests in on stdin, answers out on stdout, one JSON line each.

`{"render": …}`: an asset in, a folder with `000.webp …`, passes and `cameras.npy` out, and what is known of it.
`{"build": …}`: a procedural object out, as a GLB.
Started by `rendering.blender_process`, which outlives it; nothing an asset does to Blender reaches another process.
"""

import ctypes
import json
import os
import shutil
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rendering import asset_validation as guard
from rendering import blender, coincidence, culling, passes, quality
from rendering.cameras import FOV_DEGREES
from rendering.failure import RenderFailure
from rendering.geometry import normalise
from rendering.importer import import_asset
from rendering.procedural.build import build
from rendering.sandbox import enter_sandbox
from rendering.settings import RenderSettings, sample_area_light, sample_cameras
from rendering.webp import save_lossless


def render_object(
    asset: Path, root: Path, settings: RenderSettings, seed: int, folder: Path, threads: int
) -> dict[str, Any]:
    """Render `asset` into `folder` and return the fields of `rendering.blender_process.Rendered`.

    The asset may refer to files below `root`.

    Cameras, light and noise follow from `seed` alone.

    Raises:
        RenderFailure: the asset gives no views.
    """
    if not os.path.isfile(asset):  # false, without an exception, for a link to a folder that is not ours to read
        raise RenderFailure("missing", f"there is no file {asset.name}")
    clock, busy = Clock(), time.process_time()
    references = guard.validate(asset, root, keep_reversed=settings.separate_coincident)
    copy = guard.redirect(references, folder / "asset")
    rng = np.random.default_rng(seed)
    extrinsics = sample_cameras(settings, rng)
    light = sample_area_light(rng)
    blender.reset()
    import_asset(copy, references, keep_reversed=settings.separate_coincident)
    shape = normalise()
    colours = blender.count_colours()
    if settings.separate_coincident:
        coincidence.separate()
    if settings.cull_backfaces:
        culling.cull()
    blender.prepare(settings, light, threads)
    device = blender.use_device(settings.device)
    passes.request(settings.passes, folder)
    clock.lap("load")
    looks = []
    for view, camera in enumerate(extrinsics):
        png = folder / f"{view:03d}.png"
        blender.render(camera, view, png, shape.points if settings.crop else None)
        clock.lap("render")
        with Image.open(png) as image:
            looks.append(quality.view_stats(np.asarray(image)[..., 3]))
            save_lossless(image, png.with_suffix(".webp"))
        png.unlink()
        passes.encode(settings.passes, camera[:, :3], folder, view)
        clock.lap("encode")
    if max(look.coverage for look in looks) == 0:
        raise RenderFailure("blank", "nothing is seen in any view")
    shutil.rmtree(folder / "asset", ignore_errors=True)
    np.save(folder / "cameras.npy", extrinsics)
    meta = {
        "fov_deg": FOV_DEGREES,
        "resolution": settings.resolution,
        "seed": seed,
        "scale": shape.scale,
        "offset": shape.offset,
        "coverage": [round(look.coverage, 6) for look in looks],
        "border": [round(look.border, 6) for look in looks],
        "verdicts": quality.quality_flags(looks, shape.points, colours),
        "mesh": quality.mesh_hash(shape.vertices, shape.polygons),
        "renderer": asdict(settings),
        "light": asdict(light),
        "device": device,
        "blender": blender.VERSION,
    }
    return {"meta": meta, "phases": clock.laps, "cpu": time.process_time() - busy}


class Clock:
    """Seconds by phase of the work."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, phase: str) -> None:
        """Count the time since the last call to `phase`."""
        now = time.monotonic()
        self.laps[phase] = self.laps.get(phase, 0.0) + now - self._last
        self._last = now


def answer(request: dict[str, Any]) -> dict[str, Any]:
    try:
        match request:
            case {
                "render": {"asset": asset, "root": root, "settings": settings, "seed": seed, "folder": folder} as render
            }:
                settings = RenderSettings(**settings)
                return render_object(Path(asset), Path(root), settings, seed, Path(folder), render["threads"])
            case {"build": {"kind": kind, "seed": seed, "path": path}}:
                build(kind, seed, Path(path))
                return {}
        raise AssertionError(f"unknown request {request}")
    except RenderFailure as failure:
        return {"reason": failure.reason, "detail": failure.detail}
    except blender.NoDevice as error:
        return {"no_device": str(error)}


def main(roots: list[str]) -> None:
    """Serve requests; assets lie below `roots` or in the folder for temporary files."""
    # A parent that is killed cannot stop its child, so the kernel is asked to.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Blender writes to file descriptor 1 as it likes: answers get a descriptor of their own.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print(json.dumps({"confined": enter_sandbox(roots)}), file=answers, flush=True)  # hello: Blender is there
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
