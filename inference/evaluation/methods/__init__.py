"""Predict views by several methods: a checkpoint, baselines, an oracle, and the pictures of other programs."""
