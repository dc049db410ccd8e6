"""The panels of the W&B workspace show exactly the metrics that runs log."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.monitor import monitored
from tests.support.command import PROJECT, command
from tests.support.dots import write_dots
from tests.support.render_run import commit, planned
from tests.support.small_run import SMALL
from tests.support.tracked import tracked


def dashboard(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "jobs/dashboard.py", *words], cwd=PROJECT, capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(PROJECT), **env},
    )  # fmt: skip


@pytest.fixture(scope="module")
def sections() -> dict[str, list[dict]]:
    done = dashboard("--entity", "team", "--project", "views", "--dry-run")
    assert done.returncode == 0, done.stderr
    view = json.loads(done.stdout)
    assert (view["entity"], view["project"]) == ("team", "views")
    return {s["name"]: s["panels"] for s in view["spec"]["section"]["panelBankConfig"]["sections"] if s["panels"]}


def keys(panel: dict) -> set[str]:
    config = panel["config"]
    found = {*config.get("metrics", ()), *config.get("mediaKeys", ()), *filter(None, [config.get("xAxis")])}
    return {key for key in found if key != "_step"}


def logged(run: Path) -> set[str]:
    (folder,) = run.glob("wandb/offline-run-*")
    return {key.removesuffix("._type") for row in tracked(folder)[2] for key in row}


def test_rendering_logs_the_metrics_of_its_panels(sections, tmp_path):
    config, jobs = planned(tmp_path / "views")
    with monitored(config, jobs, []) as record_progress:
        for job in jobs:
            for record in commit(job, failed="a2"):
                record_progress(record)
    known = logged(tmp_path / "views")
    panels = sections["Rendering"]
    assert all(keys(panel) or "metricRegex" in panel["config"] for panel in panels)
    for panel in panels:
        assert keys(panel) <= known, panel
        if pattern := panel["config"].get("metricRegex"):
            assert [key for key in known if re.fullmatch(pattern, key)]
    shown = set().union(*map(keys, panels))
    assert {"objects_per_second", "views_per_second", "failed/timeout", "phase_seconds/render", "pictures"} <= shown


@pytest.mark.slow
def test_training_logs_the_metrics_of_its_panels(sections, tmp_path):
    write_dots(tmp_path / "views", objects=10)
    words = [f"data.path={tmp_path / 'views'}", f"output={tmp_path / 'run'}", "trainer.max_steps=6"]
    done = command("training.finetune", *SMALL, *words)
    assert done.returncode == 0, done.stderr
    shown = set().union(*map(keys, sections["Training"]))
    on_a_gpu_only = {"mfu", "gpu_gigabytes"}
    assert {"loss", "val_loss"} < shown - on_a_gpu_only <= logged(tmp_path / "run")


def test_a_missing_api_key_is_one_error_line(tmp_path):
    env = {"HOME": str(tmp_path), "WANDB_API_KEY": ""}
    done = dashboard("--entity", "team", **env)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: W&B needs an API key: set WANDB_API_KEY")
    online = command("pipeline.render", "objects=procedural", "wandb.mode=online", f"output={tmp_path / 'v'}", **env)
    assert online.returncode == 2 and "error: wandb.mode=online needs an API key" in online.stderr
