"""The file formats that `rendering.blender` imports, for those who look for files and have no Blender."""

SUFFIXES = (".glb", ".gltf", ".obj", ".fbx", ".ply", ".stl", ".dae", ".usd", ".usda", ".usdc", ".usdz")
