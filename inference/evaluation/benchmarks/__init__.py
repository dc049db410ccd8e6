"""Benchmarks: data files that define objects, cameras, pictures, sampler and metrics."""
