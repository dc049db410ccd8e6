"""The entry as a user runs it, on dotted objects and a model of a few thousand weights."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from command import PROJECT, command
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image

from conf.command import register
from conf.options import UserError
from tests.training.dots import write_dots
from training.config import FinetuneConfig
from training.finetune import main
from training.model import checkpoint

SMALL = [
    "model=tiny",
    "model.resolution=16",
    "model.patch=2",
    "model.unet.channels=[16,32]",
    "model.unet.attention=[false,true]",
    "model.unet.groups=8",
    "model.unet.heads=2",
    "model.encoder.image_size=16",
    "model.encoder.patch_size=8",
    "data.batch_size=4",
    "data.workers=0",
    "data.validation_fraction=0.2",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.threads=1",
    "trainer.log_every=2",
    "trainer.validate_every=5",
    "trainer.checkpoint_every=5",
    "sample.steps=2",
    "sample.rows=2",
]


def configured(*words: str) -> FinetuneConfig:
    register(FinetuneConfig, "finetune", {})
    with initialize_config_dir(str(PROJECT / "conf/training"), version_base="1.3"):
        config = OmegaConf.to_object(compose("finetune", list(words)))
    assert isinstance(config, FinetuneConfig)
    return config


def train(data, output, *words) -> int:
    return main(configured(f"data.path={data}", f"output={output}", *SMALL, "wandb.mode=disabled", *words))


def rows(output) -> list[dict[str, str]]:
    with (output / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def run(dots, tmp_path_factory) -> Path:
    """Forty steps on the command line, killed after the first checkpoint and resumed by the same command."""
    output = tmp_path_factory.mktemp("run") / "run"
    words = ["training.finetune", f"data.path={dots}", f"output={output}", *SMALL, "trainer.max_steps=40"]
    process = subprocess.Popen([sys.executable, "-m", *words], cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    last, deadline = output / "checkpoints/last.ckpt", time.monotonic() + 120
    while not last.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert last.exists() and not (output / "model").exists()
    done = command(*words)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("step ") and "/40  loss " in lines[0] and lines[0].endswith(" left")
    assert int(lines[0].split("/")[0].removeprefix("step ")) > 5, "it does not begin again"
    assert lines[-1] == (
        f"model: {output}/model; sample from it: python -m inference.sample checkpoint={output}/model "
        "image=… 'poses=[[20,45,0]]' output=outputs/views"
    )
    assert done.stderr == ""
    return output


def test_what_a_run_leaves_behind(run):
    assert [int(row["step"]) for row in rows(run) if row["loss"]] == list(range(2, 41, 2))
    validations = {row["step"]: float(row["val_loss"]) for row in rows(run) if row["val_loss"]}
    # The kill may fall between the checkpoint of step 5 and its validation.
    assert set(validations) >= {str(step) for step in range(10, 41, 5)}
    assert all(0 < loss < 10 for loss in validations.values())
    assert {row["dropped"] for row in rows(run) if row["loss"]} == {"0"}
    with Image.open(run / "samples/000040.png") as sheet:
        assert sheet.size == (3 * 18 - 2, 2 * 18 - 2)
    assert checkpoint.load(run / "model").resolution == 16
    resolved = yaml.safe_load((run / "model/training.yaml").read_text())
    assert resolved["data"]["validation_fraction"] == 0.2 and resolved["trainer"]["max_steps"] == 40
    assert list(run.glob("wandb/offline-run-*")), "the run is on disk for `wandb sync`"


def test_the_folder_holds_the_average_not_the_last_weights(run):
    state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    saved = checkpoint.load(run / "model").unet.conv_in.weight
    assert torch.equal(saved, state["ema.shadow.conv_in.weight"])
    assert not torch.equal(saved, state["model.unet.conv_in.weight"])


def test_a_finished_run_says_so(run, dots, capsys):
    before = (run / "model/model_index.json").stat().st_mtime_ns
    assert train(dots, run, "trainer.max_steps=40") == 0
    assert f"{run} is finished: 40 steps" in capsys.readouterr().out
    assert (run / "model/model_index.json").stat().st_mtime_ns == before


def test_the_output_of_another_configuration_is_refused(run, dots):
    with pytest.raises(UserError, match=r"was begun with optimizer.lr=.*, not 0.5; choose another output"):
        train(dots, run, "trainer.max_steps=50", "optimizer.lr=0.5")


def test_a_command_that_fails_at_once_leaves_its_output_free(dots, tmp_path):
    with pytest.raises(UserError, match="equally long"):
        train(dots, tmp_path / "run", "model.unet.channels=[16]")
    assert train(dots, tmp_path / "run", "trainer.max_steps=1") == 0


@pytest.mark.parametrize("word", ["data.batch_size=0", "trainer.log_every=0", "sample.rows=-1"])
def test_counts_are_positive(word):
    with pytest.raises(UserError, match=f"{word} must be at least 1"):
        configured("data.path=x", word)


def test_a_continued_run_ends_in_the_very_weights_of_an_uninterrupted_one(dots, tmp_path, capsys):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(dots, whole, "trainer.max_steps=15")
    train(dots, parts, "trainer.max_steps=10")
    capsys.readouterr()
    train(dots, parts, "trainer.max_steps=15")
    assert capsys.readouterr().out.startswith("step 12/15"), "ten steps were not trained again"
    one, two = (checkpoint.load(output / "model").state_dict() for output in (whole, parts))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert [row["loss"] for row in rows(whole)][-2:] == [row["loss"] for row in rows(parts)][-2:]
    assert not (whole / "wandb").exists()


def test_training_learns(tmp_path):
    """Eight objects, sixty steps: the noise is no longer guessed blindly."""
    write_dots(tmp_path / "data", objects=8)
    words = ["trainer.max_steps=60", "optimizer.lr=3e-3", "optimizer.warmup_steps=10", "optimizer.ema_decay=0.9"]
    train(tmp_path / "data", tmp_path / "run", *words)
    losses = [float(row["val_loss"]) for row in rows(tmp_path / "run") if row["val_loss"]]
    assert losses[-1] < 0.8 * losses[0]


def test_damage_is_named_and_counted(tmp_path, caplog):
    write_dots(tmp_path / "data", objects=8)
    (tmp_path / "data/views-000001.tar").unlink()
    assert train(tmp_path / "data", tmp_path / "run", "trainer.max_steps=6") == 0
    assert "views-000001.tar is damaged" in caplog.text and "dropped dots-004" in caplog.text
    assert 1 <= int([row for row in rows(tmp_path / "run") if row["loss"]][-1]["dropped"]) <= 4


# ---- what a user can get wrong


def test_a_mistake_is_one_sentence_and_exit_code_two(tmp_path):
    done = command("training.finetune", "data.path=nowhere", f"output={tmp_path}/run", *SMALL)
    assert done.returncode == 2
    assert done.stderr == "error: there is no folder nowhere; name the output of the stage before\n"
    assert not (tmp_path / "run/model").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["data.path=tests"], "tests holds no finished views shard"),
        (["model.unet.channels=[16]"], "model.unet.channels and model.unet.attention must be equally long"),
        (["data.validation_fraction=2"], "data.validation_fraction=2.0 must be at least 0 and below 1"),
        (["wandb.mode=online"], "wandb.mode=online needs an API key"),
        (["model.pretrained=nowhere"], "there is no folder nowhere/"),
    ],
)
def test_what_a_user_can_get_wrong_is_one_sentence(words, sentence, dots, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    with pytest.raises(UserError, match=sentence) as caught:
        train(dots, tmp_path / "run", *words)
    assert len(str(caught.value).splitlines()) == 1


# ---- the configurations

FILES = sorted((PROJECT / "conf/training").glob("*/*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}={path.stem}")
def test_every_option_of_every_group_composes(path):
    added = "" if path.parent.name == "model" else "+"
    config = configured(f"{added}{path.parent.name}={path.stem}", "data.path=x")
    if path.parent.name == "cluster":
        assert config.trainer.devices == 8 and config.trainer.accelerator == "gpu"
