"""Convert a density grid to a textured mesh: extraction, simplification, texture coordinates, baking."""
