"""The extra `render` installs neither torch nor gradio."""

import os
import shutil
import subprocess

import pytest

from tests.support.command import PROJECT

ABSENT = ("torch", "deepspeed", "lightning", "diffusers", "gradio")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("python3.11"), reason="needs Python 3.11")
def test_the_render_extra_alone_renders(tmp_path):
    source, python = tmp_path / "source", tmp_path / "venv/bin/python"
    for name in ("conf", "rendering", "pipeline", "LICENSES"):
        shutil.copytree(PROJECT / name, source / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, source / name)

    def run(*words: object) -> str:
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run([*map(str, words)], cwd=source, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("python3.11", "-m", "venv", tmp_path / "venv")
    run(python, "-m", "pip", "install", "--quiet", "--no-input", "--editable", ".[render]")
    assert (
        run(python, "-c", f"import importlib.util as u; print(*[n for n in {ABSENT} if u.find_spec(n)])").strip() == ""
    )
    run(
        python, "-m", "pipeline.render", "objects=procedural", "objects.count=2", "renderer=fast",
        "renderer.resolution=32", "renderer.views=2", f"output={tmp_path / 'views'}", "wandb.mode=disabled",
    )  # fmt: skip
    assert "2" in run(python, "-m", "pipeline.verify", f"path={tmp_path / 'views'}")
