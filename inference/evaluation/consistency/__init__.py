"""Measure the consistency of an orbit without ground truth: compare fields fitted to its even and to its odd views."""
