"""A long temporary folder, as in Slurm jobs, is replaced by a short link; `test_path.py` runs commands with one."""

import os
import subprocess
import sys

from tests.support.command import PROJECT
from tests.support.environment import long_tmpdir_and_no_home


def test_a_long_tmpdir_is_replaced_by_a_link_and_the_link_is_removed(tmp_path):
    place = long_tmpdir_and_no_home(tmp_path)
    script = """
import os, tempfile
from multiprocessing.connection import Listener
from conf.environment import prepare_environment
prepare_environment()
link = os.environ["TMPDIR"]
with Listener(family="AF_UNIX"), tempfile.NamedTemporaryFile() as file:
    print(link, os.path.realpath(file.name), sep="\\n")
"""
    words, env = [sys.executable, "-c", script], {**os.environ, **place}
    done = subprocess.run(words, cwd=PROJECT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    link, file = done.stdout.splitlines()
    assert os.path.dirname(file) == place["TMPDIR"] and not os.path.lexists(os.path.dirname(link))
