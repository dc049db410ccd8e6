# SPDX-License-Identifier: GPL-3.0-or-later
"""List the kinds of procedural objects: seeded, textured GLB files for the demo, the tests and training.

This module does not import Blender; `build.py` builds the objects.
"""

KINDS = (
    "chair", "table", "bookshelf", "sofa", "lamp", "bed", "mug", "teapot", "vase", "car", "truck", "airplane",
    "boat", "rocket", "locomotive", "dog", "cat", "fish", "duck", "elephant", "caterpillar", "house", "mushroom",
    "cactus", "snowman", "robot", "guitar", "cake",
)  # fmt: skip
COMPOSITE = "composite"  # objects of no kind, made where they are asked for by name
