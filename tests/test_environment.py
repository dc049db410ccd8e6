"""Long folders for temporary files, as of Slurm jobs, and homes that cannot be written to, as in containers."""

import importlib.util
import os
import subprocess
import sys

import pytest

from tests.support.command import PROJECT, command
from tests.support.dots import write_dots
from tests.support.small_run import SMALL


@pytest.fixture
def place(tmp_path):
    """Folders for temporary files of 150 characters, and a home that cannot even be made, whoever runs the tests."""
    (tmp_path / "file").write_text("no folder")
    folder = tmp_path / ("x" * (149 - len(str(tmp_path))))
    folder.mkdir()
    return {"TMPDIR": str(folder), "HOME": str(tmp_path / "file/home"), "WANDB_MODE": "offline"}


@pytest.mark.skipif(not importlib.util.find_spec("bpy"), reason="needs Blender, the `render` extra")
def test_rendering_needs_neither_a_short_tmpdir_nor_a_home(place, tmp_path):
    words = [
        "objects=procedural",
        "objects.count=1",
        "renderer.resolution=32",
        "renderer.samples=1",
        "renderer.views=1",
    ]
    done = command("pipeline.render", *words, f"output={tmp_path}/views", "renderer.views=1", **place)
    assert done.returncode == 0, done.stderr
    assert "ray" in os.listdir(place["TMPDIR"])


def test_training_with_readers_needs_neither(place, tmp_path):
    write_dots(tmp_path / "dots", objects=10, per_shard=5)
    words = [f"data.path={tmp_path}/dots", f"output={tmp_path}/run", *SMALL, "trainer.max_steps=1", "data.workers=1"]
    done = command("training.finetune", *words, **place)
    assert done.returncode == 0, done.stderr


def test_the_short_folder_is_the_long_one_and_leaves_nothing(place):
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
