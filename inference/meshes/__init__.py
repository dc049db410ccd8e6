"""Meshes with colours: reading, ray casting, comparing and writing."""
