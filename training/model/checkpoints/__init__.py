"""Checkpoints of this project and of others: read, write, convert, identify."""
