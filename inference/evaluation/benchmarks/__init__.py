"""Define benchmarks as data files: objects, cameras, pictures, sampler and metrics."""
