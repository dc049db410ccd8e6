"""Options of training.finetune: bounds, mistakes, and the groups of its configuration."""

import pytest

from conf.options import UserError
from tests.support.command import PROJECT, command
from tests.support.finetune import configured, train
from tests.support.small_run import SMALL
from training.config import Strategy

FILES = sorted((PROJECT / "conf/training").glob("*/*.yaml"))


@pytest.mark.parametrize("word", ["data.batch_size=0", "trainer.log_every=0", "sample.rows=-1"])
def test_counts_are_positive(word):
    with pytest.raises(UserError, match=f"^{word}: .*1"):
        configured("data.path=x", word)


@pytest.mark.parametrize(
    "word",
    ["trainer.devices=-1", "trainer.validate_every=-1", "data.workers=-1", "optimizer.lr=nan", "optimizer.lr=-1.0",
     "optimizer.ema_decay=2.0", "optimizer.weight_decay=inf", "sample.steps=1001", "seed=-1"],
)  # fmt: skip
def test_numbers_have_bounds(word):
    with pytest.raises(UserError, match=f"^{word}: "):
        configured("data.path=x", word)


def test_an_s3_output_is_refused():
    with pytest.raises(UserError, match="^output=s3://bucket/run: .*mirror="):
        configured("data.path=x", "output=s3://bucket/run")


def test_a_mistake_is_one_sentence_and_exit_code_two(tmp_path):
    done = command("training.finetune", "data.path=nowhere", f"output={tmp_path}/run", *SMALL)
    assert done.returncode == 2
    assert done.stderr == "error: nowhere: no such folder; give the output of the previous stage\n"
    assert not (tmp_path / "run/model").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["data.path=tests"], "tests: no finished views shard"),
        (["model.unet.channels=[16]"], r"channels=\[16\]: must have one entry per level"),
        (["data.validation_fraction=2"], "^data.validation_fraction=2.0: "),
        (["wandb.mode=online"], "wandb.mode=online needs an API key"),
        (["model.pretrained=nowhere"], "there is no folder nowhere/"),
    ],
)
def test_invalid_options_are_refused_with_one_sentence(words, sentence, dots, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    with pytest.raises(UserError, match=sentence) as caught:
        train(dots, tmp_path / "run", *words)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}={path.stem}")
def test_every_option_of_every_group_composes(path):
    added = "" if path.parent.name in ("model", "trainer", "learning") else "+"
    config = configured(f"{added}{path.parent.name}={path.stem}", "data.path=x")
    if path.parent.name == "cluster":
        assert config.trainer.strategy is Strategy.zero2 and config.trainer.accelerator == "gpu"
    if path.parent.name == "trainer":
        assert config.trainer.strategy == path.stem
