"""The kinds of procedural objects, for those who name them and have no Blender to build them."""

KINDS = (
    "chair", "table", "bookshelf", "sofa", "lamp", "bed", "mug", "teapot", "vase", "car", "truck", "airplane",
    "boat", "rocket", "locomotive", "dog", "cat", "fish", "duck", "elephant", "caterpillar", "house", "mushroom",
    "cactus", "snowman", "robot", "guitar", "cake",
)  # fmt: skip
