"""Radiance fields on voxel grids, and volume rendering."""
