"""Compute metrics of pictures, each with its exact definition."""
