"""Lightning callbacks: checkpoints, metrics, sample images, remote copy, W&B artifacts."""
