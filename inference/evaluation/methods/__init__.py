"""Methods that predict views: a checkpoint, baselines, an oracle, and the pictures of other programs."""
