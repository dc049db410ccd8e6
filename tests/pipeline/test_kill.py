"""Shards of a run that is killed forty times."""

import importlib.util
import subprocess
import sys

import pytest

from tests.support.command import PROJECT


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("bpy"), reason="needs Blender, the `render` extra")
def test_shards_do_not_depend_on_forty_kills():
    done = subprocess.run([sys.executable, "-m", "tests.support.kill"], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "640 objects in 128 shards" in done.stdout
