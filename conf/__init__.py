"""The configuration of every command.

Every layer imports this package before torch, so the environment variable below reaches the OpenMP runtime that torch
loads: idle threads then sleep at a barrier. By default they spin, and where another program needs the same core, each
barrier of a small network waits for a time slice of the scheduler (docs/benchmarks.md, "Beside other programs").
"""

import os

__version__ = "0.1.0"

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
