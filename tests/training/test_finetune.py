"""The entry as a user runs it, on dotted objects and a model of a few thousand weights."""

import csv
import json
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
from tests.training.dots import write_dots
from training.config import FinetuneConfig
from training.model import checkpoint

SMALL = [
    "model=tiny",
    "model.resolution=16",
    "model.unet.channels=[16,32]",
    "model.unet.groups=8",
    "model.unet.heads=2",
    "model.encoder.image_size=16",
    "model.encoder.patch_size=8",
    "data.batch_size=4",
    "data.workers=0",
    "data.validation_fraction=0.2",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.log_every=2",
    "trainer.validate_every=5",
    "trainer.checkpoint_every=5",
    "sample.steps=2",
    "sample.rows=2",
]


def finetune(data, output, *words):
    return command("training.finetune", f"data.path={data}", f"output={output}", *SMALL, *words)


def rows(output) -> list[dict[str, str]]:
    with (output / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def weights(output):
    return checkpoint.load(output / "model").state_dict()


@pytest.fixture(scope="module")
def run(dots, tmp_path_factory) -> Path:
    """Ten steps, with Weights & Biases offline."""
    output = tmp_path_factory.mktemp("run") / "run"
    done = finetune(dots, output, "trainer.max_steps=10")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("step 2/10  loss ") and lines[0].endswith(" left")
    assert lines[-1] == (
        f"model: {output}/model; sample from it: python -m inference.sample checkpoint={output}/model "
        f"image=… 'poses=[[20,45,0]]' output=outputs/views"
    )
    assert done.stderr == ""
    return output


def test_what_a_run_leaves_behind(run):
    steps = [row["step"] for row in rows(run) if row["loss"]]
    assert steps == ["2", "4", "6", "8", "10"]
    validations = {row["step"]: float(row["val_loss"]) for row in rows(run) if row["val_loss"]}
    assert validations.keys() == {"5", "10"} and all(0 < v < 3 for v in validations.values())
    assert {row["dropped"] for row in rows(run) if row["loss"]} == {"0"}
    with Image.open(run / "samples/000010.png") as sheet:
        assert sheet.size == (3 * 18 - 2, 2 * 18 - 2)
    model = checkpoint.load(run / "model")
    assert model.resolution == 16
    resolved = yaml.safe_load((run / "model/training.yaml").read_text())
    assert resolved["data"]["validation_fraction"] == 0.2 and resolved["trainer"]["max_steps"] == 10
    assert (run / "checkpoints/last.ckpt").exists()
    assert list(run.glob("wandb/offline-run-*")), "the run is on disk for `wandb sync`"


def test_the_folder_holds_the_average_not_the_last_weights(run):
    state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    saved = checkpoint.load(run / "model").unet.conv_in.weight
    assert torch.equal(saved, state["ema.shadow.conv_in.weight"])
    assert not torch.equal(saved, state["model.unet.conv_in.weight"])


def test_a_finished_run_says_so(run, dots):
    before = (run / "model/model_index.json").stat().st_mtime_ns
    done = finetune(dots, run, "trainer.max_steps=10")
    assert done.returncode == 0 and f"{run} is finished: 10 steps" in done.stdout
    assert (run / "model/model_index.json").stat().st_mtime_ns == before


def test_a_longer_run_continues_to_the_very_weights_of_an_uninterrupted_one(run, dots, tmp_path):
    whole = finetune(dots, tmp_path / "whole", "trainer.max_steps=15", "wandb.mode=disabled")
    assert whole.returncode == 0, whole.stderr
    shorter = finetune(dots, tmp_path / "parts", "trainer.max_steps=10", "wandb.mode=disabled")
    assert shorter.returncode == 0, shorter.stderr
    rest = finetune(dots, tmp_path / "parts", "trainer.max_steps=15", "wandb.mode=disabled")
    assert rest.returncode == 0, rest.stderr
    assert rest.stdout.startswith("step 12/15"), "ten steps were not trained again"
    one, two = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert [r["loss"] for r in rows(tmp_path / "whole")][-2:] == [r["loss"] for r in rows(tmp_path / "parts")][-2:]
    assert not (tmp_path / "whole/wandb").exists()


def test_a_killed_run_is_resumed(dots, tmp_path):
    words = [f"data.path={dots}", f"output={tmp_path}/run", *SMALL, "trainer.max_steps=40", "wandb.mode=disabled"]
    process = subprocess.Popen(
        [sys.executable, "-m", "training.finetune", *words], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    )
    last = tmp_path / "run/checkpoints/last.ckpt"
    deadline = time.monotonic() + 60
    while not last.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert last.exists() and not (tmp_path / "run/model").exists()
    done = command("training.finetune", *words)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split("/", 1)[0].removeprefix("step ")) > 5
    steps = [int(row["step"]) for row in rows(tmp_path / "run") if row["loss"]]
    assert steps == sorted(set(steps)) and steps[-1] == 40
    checkpoint.load(tmp_path / "run/model")


# ---- what a user can get wrong


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["data.path=nowhere"], "error: there is no folder nowhere"),
        (["data.path=tests"], "error: tests holds no finished views shard"),
        (["modl=tiny"], "error: "),
        (["model=huge"], "error: "),
        (["trainer.max_steps=many"], "error: Value 'many' of type 'str' could not be converted"),
        (["model.unet.channels=[16]"], "error: model.unet.channels and model.unet.attention must be equally long"),
        (["data.validation_fraction=2"], "error: data.validation_fraction=2.0 must be at least 0 and below 1"),
        (["wandb.mode=online"], "error: wandb.mode=online needs an API key"),
        (["model.pretrained=nowhere"], "error: there is no folder nowhere/"),
    ],
)
def test_what_a_user_can_get_wrong_is_one_sentence(words, sentence, dots, tmp_path):
    done = command(
        "training.finetune",
        f"data.path={dots}",
        f"output={tmp_path}/run",
        *SMALL,
        *words,
        WANDB_API_KEY="",
        HOME=str(tmp_path),
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(sentence)
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert not (tmp_path / "run/model").exists()


def test_data_path_is_asked_for(tmp_path):
    done = command("training.finetune", f"output={tmp_path}/run", *SMALL)
    assert done.returncode == 2 and "data.path" in done.stderr and len(done.stderr.splitlines()) == 1


def test_the_output_of_another_configuration_is_refused(run, dots):
    done = finetune(dots, run, "trainer.max_steps=20", "optimizer.lr=0.5")
    assert done.returncode == 2
    assert f"error: {run} was begun with optimizer.lr=" in done.stderr and "not 0.5" in done.stderr


def test_damage_is_named_and_counted(tmp_path):
    write_dots(tmp_path / "data", objects=8)
    marker = tmp_path / "data/views-000001.json"
    marker.write_text(json.dumps({**json.loads(marker.read_text())}))
    (tmp_path / "data/views-000001.tar").unlink()
    done = finetune(tmp_path / "data", tmp_path / "run", "trainer.max_steps=6", "wandb.mode=disabled")
    assert done.returncode == 0, done.stderr
    assert "views-000001.tar is damaged" in done.stderr
    dropped = int([row for row in rows(tmp_path / "run") if row["loss"]][-1]["dropped"])
    assert 1 <= dropped <= 4 and done.stderr.count("dropped dots-") >= dropped


# ---- the configurations

FILES = sorted((PROJECT / "conf/training").glob("*/*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}={path.stem}")
def test_every_option_of_every_group_composes(path):
    register(FinetuneConfig, "finetune", {})
    added = "" if path.parent.name == "model" else "+"
    with initialize_config_dir(str(PROJECT / "conf/training"), version_base="1.3"):
        composed = compose("finetune", [f"{added}{path.parent.name}={path.stem}", "data.path=x"])
    config = OmegaConf.to_object(composed)
    assert isinstance(config, FinetuneConfig)
    if path.parent.name == "cluster":
        assert config.trainer.devices == 8 and config.trainer.strategy == "deepspeed_stage_2"


def test_help_names_the_options():
    done = command("training.finetune", "--help")
    assert done.returncode == 0
    for name in ("data.path", "model.unet.channels", "trainer.max_steps", "wandb.mode=offline", "Group cluster"):
        assert name in done.stdout
