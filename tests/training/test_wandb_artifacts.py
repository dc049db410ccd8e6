"""Models of a run as W&B artifacts, offline."""

import sys
from pathlib import Path

import wandb

from tests.support.finetune import configured
from tests.support.small_run import SMALL
from tests.support.tracked import artifacts, tracked
from training.train import train


def test_artifacts_name_the_remote_copy_without_boto3(s3, dots, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "boto3", None)  # installed with moto, but no extra installs it
    s3.mkdir("artifacts")
    output, mirror = tmp_path / "my run: 1", "s3://artifacts/run"
    words = [f"data.path={dots}", f"output={output}", f"mirror={mirror}", *SMALL, "artifacts=all"]
    train(configured(*words, "trainer.max_steps=5"))
    best, model = logged(output)
    assert best == ("my-run--1-best", ["training.yaml"], {"step": 5, "url": f"{mirror}/best/00000005"})
    assert model == ("my-run--1-model", ["training.yaml"], {"step": 5, "url": f"{mirror}/model/00000005"})
    assert s3.exists(f"{best[2]['url']}/unet") and s3.exists(f"{model[2]['url']}/unet")


def test_a_failed_artifact_does_not_end_the_run(dots, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staging"))

    def break_staging() -> bool:
        if (tmp_path / "run/best/training.yaml").exists():
            monkeypatch.setenv("WANDB_DATA_DIR", "/dev/null/staging")
        return False

    words = [f"data.path={dots}", f"output={tmp_path / 'run'}", *SMALL, "artifacts=all", "trainer.validate_every=1"]
    assert train(configured(*words, "trainer.max_steps=4"), break_staging) == 0
    first, *_, final = logged(tmp_path / "run")
    assert first[:2] == ("run-best", ["training.yaml"])
    assert final[0] == "run-model" and "unet/diffusion_pytorch_model.safetensors" in final[1]
    assert "/dev/null/staging" in caplog.text
    staged = [path for path in (tmp_path / "staging").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in staged) < 100_000, "no weights"


def logged(output: Path):
    wandb.finish()
    (session,) = output.glob("wandb/offline-run-*")
    tracked(session)  # waits for the end of the run
    return artifacts(session)
