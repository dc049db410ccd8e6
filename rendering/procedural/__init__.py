# SPDX-License-Identifier: GPL-3.0-or-later
"""Seeded, textured toy objects made with Blender and written as GLB, for demos and tests without a dataset.

This module lists their names and imports no Blender; `build.py` builds them.
"""

KINDS = (
    "chair", "table", "bookshelf", "sofa", "lamp", "bed", "mug", "teapot", "vase", "car", "truck", "airplane",
    "boat", "rocket", "locomotive", "dog", "cat", "fish", "duck", "elephant", "caterpillar", "house", "mushroom",
    "cactus", "snowman", "robot", "guitar", "cake",
)  # fmt: skip
COMPOSITE = "composite"  # objects of no kind, made where they are asked for by name
