"""Measure sampling and the rendering of a field against other implementations."""
