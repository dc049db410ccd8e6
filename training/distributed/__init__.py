"""Training on several devices: topology, strategies, Ray Train."""
