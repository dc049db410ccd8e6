"""Reconstruct an object from views that a guide draws: visual hull, radiance grid, refinement."""
