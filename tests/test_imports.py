"""Settings and commands import heavy libraries only when they need them."""

import subprocess
import sys
import tomllib

import pytest

from tests.support.command import PROJECT

HEAVY = {"torch", "diffusers", "transformers", "lightning", "deepspeed", "ray", "gradio", "bpy", "wandb", "matplotlib"}
SETTINGS = [f"{layer}.config" for layer in ("pipeline", "training", "training.model", "inference")]
SCRIPTS = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["scripts"]
COMMANDS = sorted({script.partition(":")[0] for script in SCRIPTS.values()} | {"rendering.benchmark"})


@pytest.mark.parametrize("module", ["conf.command", *SETTINGS, "inference", *COMMANDS])
def test_importing_settings_and_commands_imports_no_heavy_library(module):
    script = f"import sys, {module}; print(*sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
