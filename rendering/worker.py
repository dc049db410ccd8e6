# SPDX-License-Identifier: GPL-3.0-or-later
"""The child process that holds Blender: requests in on stdin, answers out on stdout, one JSON line each.

`{"render": …}`: an asset in, a folder with `000.webp …`, `cameras.npy` and `meta.json` out.
`{"build": …}`: a procedural object out, as a GLB.
Started by `rendering.renderer`, which outlives it; nothing an asset does to Blender reaches another process.
"""

import ctypes
import json
import os
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rendering import blender, cameras
from rendering.failure import RenderFailure
from rendering.importer import import_asset
from rendering.procedural.build import build
from rendering.recipe import Recipe, sample_area_light


def render_object(asset: Path, recipe: Recipe, seed: int, folder: Path, threads: int) -> dict[str, Any]:
    """Render `asset` into `folder` and return the fields of `rendering.renderer.Rendered`.

    Cameras, light and noise follow from `seed` alone.

    Raises:
        RenderFailure: the asset gives no views.
    """
    if not asset.is_file():
        raise RenderFailure("missing", f"there is no file {asset.name}")
    phases = {"load": 0.0, "render": 0.0, "encode": 0.0}
    start = time.monotonic()
    rng = np.random.default_rng(seed)
    extrinsics = cameras.sample_zero123(rng, recipe.views)
    light = sample_area_light(rng)
    blender.reset()
    import_asset(asset)
    scale, offset = blender.normalise()
    blender.prepare(recipe, light, threads)
    phases["load"] = time.monotonic() - start
    coverage = []
    for view, camera in enumerate(extrinsics):
        png = folder / f"{view:03d}.png"
        start = time.monotonic()
        blender.render(camera, seed=view, path=png)
        phases["render"] += time.monotonic() - start
        start = time.monotonic()
        with Image.open(png) as image:
            coverage.append(float(np.asarray(image)[..., 3].mean() / 255))
            # exact keeps the colour of transparent pixels: lossless means all four channels.
            image.save(png.with_suffix(".webp"), lossless=True, quality=50, method=2, exact=True)
        png.unlink()
        phases["encode"] += time.monotonic() - start
    if max(coverage) == 0:
        raise RenderFailure("blank", "nothing is seen in any view")
    np.save(folder / "cameras.npy", extrinsics)
    meta = {
        "fov_deg": cameras.FOV_DEGREES,
        "resolution": recipe.resolution,
        "seed": seed,
        "scale": scale,
        "offset": offset,
        "coverage": [round(value, 6) for value in coverage],
        "renderer": asdict(recipe),
        "light": asdict(light),
        "verdicts": [],
        "mesh": "",
        "blender": blender.VERSION,
    }
    return {"meta": meta, "phases": phases}


def answer(request: dict[str, Any]) -> dict[str, Any]:
    try:
        match request:
            case {"render": {"asset": asset, "recipe": recipe, "seed": seed, "folder": folder, "threads": threads}}:
                return render_object(Path(asset), Recipe(**recipe), seed, Path(folder), threads)
            case {"build": {"kind": kind, "seed": seed, "path": path}}:
                build(kind, seed, Path(path))
                return {}
        raise AssertionError(f"unknown request {request}")
    except RenderFailure as failure:
        return {"reason": failure.reason, "detail": failure.detail}


def main() -> None:
    # A parent that is killed cannot stop its child, so the kernel is asked to.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Blender writes to file descriptor 1 as it likes: answers get a descriptor of their own.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print("{}", file=answers, flush=True)  # hello: Blender is there
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
