"""Reference run for runs of several processes."""

from pathlib import Path

import pytest
import torch

from tests.support.command import command
from tests.support.small_run import SMALL, losses
from training.model.checkpoints import checkpoint

GLOBAL = ["data.global_batch=8", "trainer.log_every=1", "trainer.max_steps=10", "wandb.mode=disabled"]


def one_process(data: str, output: Path, *more: str) -> Path:
    """Train ten steps of eight pairs in one process with two readers, like two processes with one reader each."""
    done = command(
        "training.finetune", f"data.path={data}", f"output={output}", *SMALL, *GLOBAL, "data.workers=2", *more
    )
    assert done.returncode == 0, done.stderr
    return output


def assert_same(output: Path, alone: Path, same_validation: bool = False) -> None:
    assert len(losses(output)) == 10, losses(output)
    assert losses(output) == pytest.approx(losses(alone), rel=1e-5), (losses(output), losses(alone))
    assert losses(output, "grad_norm") == pytest.approx(losses(alone, "grad_norm"), rel=1e-3)
    # Which device validates an object decides its noise, where each validates some.
    assert losses(output, "val_loss") == pytest.approx(losses(alone, "val_loss"), rel=1e-5 if same_validation else 0.1)
    one, two = (checkpoint.load(run / "model").state_dict() for run in (alone, output))
    assert all(torch.allclose(one[name], two[name], atol=3e-5) for name in one)
