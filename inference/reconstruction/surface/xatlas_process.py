"""Unwrap the mesh in a file; `unwrapping` runs this script in a process that it can end.

Usage: python xatlas_process.py input.npz output.npz

Input: vertices `[V, 3]`, faces `[F, 3]` and `size`. Output: `uv` `[F, 3, 2]` in pixels of an atlas with `shape` `[2]`.
"""

import sys

import numpy as np
import xatlas

PADDING = 4  # pixels between charts, which `baking` fills


def main(source: str, target: str) -> None:
    """Read the mesh from `source`, unwrap it and write the result to `target`."""
    mesh = np.load(source)
    charts, pack = xatlas.ChartOptions(), xatlas.PackOptions()
    pack.resolution, pack.padding, pack.bilinear = int(mesh["size"]), PADDING, True
    atlas = xatlas.Atlas()
    atlas.add_mesh(mesh["vertices"].astype(np.float32), mesh["faces"].astype(np.uint32))
    atlas.generate(charts, pack)
    _, indices, uv = atlas[0]
    shape = np.array([atlas.width, atlas.height], dtype=np.float64)
    np.savez(target, uv=uv[indices] * shape, shape=shape, charts=atlas.chart_count)


if __name__ == "__main__":
    main(*sys.argv[1:])
