"""HTML page about a training run."""
