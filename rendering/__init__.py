"""Rendering: multi-view images of one 3D file with Blender, and the geometry of its cameras."""
