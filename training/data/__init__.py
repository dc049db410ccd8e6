"""View pairs for training: splitting, reading, encoding and resuming."""
