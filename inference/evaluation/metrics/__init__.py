"""Metrics of pictures, each with its exact definition."""
