"""Suffixes of the supported file formats; importable without Blender."""

SUFFIXES = (".glb", ".gltf", ".obj", ".fbx", ".ply", ".stl", ".dae", ".usd", ".usda", ".usdc", ".usdz")
