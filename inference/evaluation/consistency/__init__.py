"""Consistency of the views of an orbit, without truth: fields fitted to its even and to its odd views are compared."""
