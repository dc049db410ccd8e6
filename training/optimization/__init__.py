"""Optimiser, moving average, faster kernels, and the stop of a run that diverges."""
