"""Devices, number formats, threads, memory and operations: the machine and the demands of a model on it."""
