"""Score the views that a checkpoint samples: fixed pairs, baselines, pose accuracy, tables and a page."""
