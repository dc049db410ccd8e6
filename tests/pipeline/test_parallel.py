"""Worker processes end with their parent, even if it ends early."""

import subprocess
import sys
import time
from pathlib import Path

from tests.support.command import PROJECT

PARENT = """
import time
from pathlib import Path
from pipeline.parallel import process_pool

if __name__ == "__mp_main__":  # a worker imports this first
    Path(__file__).with_suffix(".started").touch()
    time.sleep(1)
if __name__ == "__main__":
    with process_pool(2) as spread:
        list(spread(time.sleep, [60, 60]))
"""


def alive(pid: int) -> bool:
    """Return whether the process exists and is not a zombie."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except FileNotFoundError:
        return False


def test_a_worker_ends_if_its_parent_was_killed_before_the_worker_started(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen([sys.executable, script], cwd=PROJECT, env={"PYTHONPATH": str(PROJECT)})
    while not script.with_suffix(".started").exists():
        assert parent.poll() is None
    children = [int(pid) for pid in Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()]
    assert children
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while any(map(alive, children)):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.05)
