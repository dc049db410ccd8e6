"""Reconstruct an object from views that a guide samples: visual hull, radiance grid, refinement."""
