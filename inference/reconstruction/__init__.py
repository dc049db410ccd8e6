"""Reconstruct a textured 3D mesh from one picture (Zero-1-to-3, section 3.3)."""
