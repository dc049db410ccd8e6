"""Score the views that a checkpoint samples: fixed pairs, baselines, camera obedience, tables and a page."""
