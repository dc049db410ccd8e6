"""Training and inference run on Python 3.12, without Blender and Ray."""

import os
import shutil
import subprocess

import pytest
from PIL import Image

from tests.support.command import PROJECT
from tests.support.dots import write_dots


def runs(python: str) -> bool:
    """Return whether the interpreter runs; a name on PATH may be a stub."""
    return bool(shutil.which(python)) and subprocess.run([python, "--version"], capture_output=True).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not runs("python3.12"), reason="needs Python 3.12")
def test_training_and_sampling_on_python_3_12(tmp_path):
    def run(*words: object, code: int = 0) -> str:
        env = {**os.environ, "PYTHONPATH": str(PROJECT)}
        done = subprocess.run([*map(str, words)], cwd=PROJECT, env=env, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        return done.stderr if code else done.stdout

    run("python3.12", "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv/bin/python"
    run(python, "-m", "pip", "install", "--quiet", "--no-input", "--editable", ".[train,views]")
    assert (
        run(python, "-c", "import importlib.util as u; print(u.find_spec('bpy'), u.find_spec('ray'))") == "None None\n"
    )

    write_dots(tmp_path / "views", objects=6)
    Image.new("RGBA", (32, 32), (200, 30, 30, 255)).save(tmp_path / "front.png")
    run(
        python, "-m", "training.finetune", f"data.path={tmp_path / 'views'}", "model=tiny", "trainer.max_steps=2",
        "trainer.accelerator=cpu", "data.batch_size=2", "sample.steps=2", f"output={tmp_path / 'run'}",
    )  # fmt: skip
    run(
        python, "-m", "inference.sample", f"checkpoint={tmp_path / 'run/model'}", f"image={tmp_path / 'front.png'}",
        "poses=[[20,45,0]]", "sampling.steps=2", "device=cpu", f"output={tmp_path / 'out'}",
    )  # fmt: skip
    assert Image.open(tmp_path / "out/000.png").size == (32, 32)
    refused = run(python, "-m", "pipeline.render", "objects=procedural", f"output={tmp_path / 'no'}", code=2)
    assert refused.startswith("error: this Python has no Blender module") and len(refused.splitlines()) == 1
