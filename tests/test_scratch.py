"""Folders for temporary files: removed at the end of their process, or by the next process if it was killed."""

import os
import signal
import subprocess
import sys
import tempfile

from conf.scratch import remove_abandoned, scratch_folder

HOLDER = """
import sys, time
from conf.scratch import scratch_folder
(scratch_folder() / "shard.tar").write_bytes(bytes(1000))
print(scratch_folder().name, flush=True)
time.sleep(int(sys.argv[1]))
"""


def hold(folder, seconds):
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(seconds)],
        env={**os.environ, "TMPDIR": str(folder), "PYTHONPATH": "."},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_process_removes_its_folder(tmp_path):
    holder = hold(tmp_path, 0)
    assert holder.wait(60) == 0
    assert os.listdir(tmp_path) == []


def test_the_folder_of_a_killed_process_is_removed_by_the_next(tmp_path, monkeypatch):
    (tmp_path / "zero123-results").mkdir()  # not such a folder: it has no lock
    killed, alive = hold(tmp_path, 60), hold(tmp_path, 60)
    try:
        names = [process.stdout.readline().strip() for process in (killed, alive)]
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert (tmp_path / names[0] / "shard.tar").exists()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        own = scratch_folder()
        assert own == scratch_folder() and own.parent == tmp_path
        remove_abandoned()
        assert sorted(os.listdir(tmp_path)) == sorted(["zero123-results", names[1], own.name])
        assert (tmp_path / names[1] / "shard.tar").exists()
    finally:
        killed.kill()
        alive.kill()
