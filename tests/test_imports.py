"""Modules start quickly: neither settings nor the commands that need no model import torch."""

import subprocess
import sys

import pytest

from tests.support.command import PROJECT

HEAVY = {"torch", "diffusers", "transformers", "lightning", "deepspeed", "ray", "gradio", "bpy", "wandb"}
LIGHT = [
    "conf.command",
    *(f"{layer}.config" for layer in ("pipeline", "training", "training.model", "inference")),
    *(f"pipeline.{name}" for name in ("render", "verify", "inspect", "pack", "export", "status")),
    "training.finetune",
    "training.plot",
    "inference.evaluate",
]


@pytest.mark.parametrize("module", LIGHT)
def test_importing_settings_and_commands_imports_no_heavy_library(module):
    script = f"import sys, {module}; print(*sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
