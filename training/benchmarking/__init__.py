"""The benchmark of a training step: variants and their times."""
