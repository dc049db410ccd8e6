# SPDX-License-Identifier: GPL-3.0-or-later
"""The process that runs Blender. It reads requests from stdin and writes responses to stdout, one JSON line each.

`{"render": …}` renders an asset into a folder: `000.webp …`, further passes and `cameras.npy`.
`{"build": …}` writes a procedural object as a GLB.
`rendering.blender_process` starts this process and restarts it, so that a crash of Blender affects one object.
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

from rendering import asset_validation, blender, coincidence, culling, passes, quality
from rendering.cameras import FOV_DEGREES
from rendering.failure import RenderFailure
from rendering.geometry import normalise
from rendering.importer import import_asset
from rendering.lights import light_record, sample_light
from rendering.procedural.build import build
from rendering.sandbox import enter_sandbox
from rendering.settings import RenderSettings, sample_cameras
from rendering.webp import save_lossless


def render_object(
    asset: Path, root: Path, settings: RenderSettings, seed: int, folder: Path, threads: int
) -> dict[str, Any]:
    """Render `asset` into `folder` and return the fields of `rendering.blender_process.Rendered`.

    Args:
        asset: The file.
        root: The folder of the source: the asset may refer to files below it.
        settings: Cameras, lights and sampling.
        seed: Determines the random cameras and the lights.
        folder: Existing folder for the views.
        threads: Cycles threads.

    Raises:
        RenderFailure: The asset has no views.
        NoDevice: The machine has no GPU of the kind `settings.device`.
    """
    if not os.path.isfile(asset):  # False, not an exception, for a link into a folder without permission
        raise RenderFailure("missing", f"no file {asset.name}")
    timer, cpu_start = PhaseTimer(), time.process_time()
    references = asset_validation.validate(asset, root, keep_reversed=settings.separate_coincident)
    copy = asset_validation.redirect(references, folder / "asset")
    rng = np.random.default_rng(seed)
    extrinsics = sample_cameras(settings, rng)
    light = sample_light(settings.lighting, seed, rng)
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
    timer.lap("load")
    stats = []
    for number, camera in enumerate(extrinsics):
        png = folder / f"{number:03d}.png"
        blender.render(camera, number, png, shape.points if settings.crop else None)
        timer.lap("render")
        with Image.open(png) as image:
            stats.append(quality.view_stats(np.asarray(image)[..., 3]))
            save_lossless(image, png.with_suffix(".webp"))
        png.unlink()
        passes.encode(settings.passes, camera[:, :3], folder, number)
        timer.lap("encode")
    if max(view.coverage for view in stats) == 0:
        raise RenderFailure("blank", "every view is empty")
    shutil.rmtree(folder / "asset", ignore_errors=True)
    np.save(folder / "cameras.npy", extrinsics)
    meta = {
        "fov_deg": FOV_DEGREES,
        "resolution": settings.resolution,
        "seed": seed,
        "scale": shape.scale,
        "offset": shape.offset,
        "coverage": [round(view.coverage, 6) for view in stats],
        "border": [round(view.border, 6) for view in stats],
        "verdicts": quality.quality_flags(stats, shape.points, colours),
        "mesh": quality.mesh_hash(shape.vertices, shape.polygons),
        "renderer": asdict(settings),
        "light": light_record(settings.lighting, light),
        "device": device,
        "blender": blender.VERSION,
    }
    return {"meta": meta, "phases": timer.seconds, "cpu": time.process_time() - cpu_start}


class PhaseTimer:
    """Measure the seconds of each phase of the work."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, phase: str) -> None:
        """Add the time since the previous call to `phase`."""
        now = time.monotonic()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._last
        self._last = now


def respond(request: dict[str, Any]) -> dict[str, Any]:
    """Return the response to a request; a failure is a response with `reason` and `detail`."""
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


def main(temporary: str, *roots: str) -> None:
    """Serve requests for assets below `roots` or `temporary`, below which the views are written, until stdin ends."""
    # prctl(PR_SET_PDEATHSIG): the kernel kills this process if its parent is killed.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Blender prints to file descriptor 1, so responses get another one.
    responses = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    greeting = {"sandboxed": enter_sandbox(roots, writable=temporary)}
    print(json.dumps(greeting), file=responses, flush=True)  # Blender has started
    for line in sys.stdin:
        print(json.dumps(respond(json.loads(line))), file=responses, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
