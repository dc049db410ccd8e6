"""Represent radiance fields on voxel grids, and render them."""
