# SPDX-License-Identifier: GPL-3.0-or-later
"""Build a procedural object with Blender and write it as GLB."""

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from rendering.procedural import (
    COMPOSITE,
    composite,
    craft,
    creatures,
    furniture,
    garden,
    house,
    mammals,
    railway,
    scene,
    toys,
    vehicles,
    vessels,
)

BUILDERS: dict[str, Callable[[np.random.Generator], None]] = {
    "chair": furniture.chair,
    "table": furniture.table,
    "bookshelf": furniture.bookshelf,
    "sofa": furniture.sofa,
    "lamp": furniture.lamp,
    "bed": furniture.bed,
    "mug": vessels.mug,
    "teapot": vessels.teapot,
    "vase": vessels.vase,
    "car": vehicles.car,
    "truck": vehicles.truck,
    "airplane": craft.airplane,
    "boat": craft.boat,
    "rocket": craft.rocket,
    "locomotive": railway.locomotive,
    "dog": mammals.dog,
    "cat": mammals.cat,
    "fish": creatures.fish,
    "duck": creatures.duck,
    "elephant": mammals.elephant,
    "caterpillar": creatures.caterpillar,
    "house": house.house,
    "mushroom": garden.mushroom,
    "cactus": garden.cactus,
    "snowman": garden.snowman,
    "robot": toys.robot,
    "guitar": toys.guitar,
    "cake": toys.cake,
    COMPOSITE: composite.composite,
}


def build(kind: str, seed: int, path: Path) -> None:
    """Build one object of `kind` in an emptied Blender file and export it to `path` (GLB).

    The object is about a metre long, z up and facing -y in Blender (y up and facing +z in the file). Equal kind and
    seed give equal bytes. The content of the open Blender file is lost.

    Args:
        kind: Name of `rendering.procedural.KINDS`, or `COMPOSITE`.
        seed: Determines proportions, colours and patterns.
        path: The GLB.
    """
    builder = BUILDERS[kind]
    scene.empty()
    builder(np.random.default_rng([zlib.crc32(kind.encode()), seed]))
    scene.export(path)
