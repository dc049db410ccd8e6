"""Training commands refuse folders with files of others, and folders that another run is writing to."""

import json
from pathlib import Path

import pytest
import torch

from conf.options import UserError
from tests.support.command import Started, command
from tests.support.small_run import SMALL
from training import benchmark, convert, encode, finetune, plot
from training.config import BenchmarkConfig, ConvertConfig, DataConfig, EncodeConfig, FinetuneConfig, PlotConfig
from training.model.checkpoints import checkpoint, checkpoint_folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("name", ["model/notes.txt", "best/x", "metrics.csv", "validation.txt", "training.yaml"])
def test_a_run_refuses_files_of_others(name, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("a: mine")
    with pytest.raises(UserError, match=f"holds {name.split('/')[0]}"):
        finetune.main(FinetuneConfig(str(tmp_path), data=DataConfig("nowhere")))
    with pytest.raises(UserError, match="mirror="):
        finetune.main(FinetuneConfig(str(tmp_path / "run"), data=DataConfig("nowhere"), mirror=str(tmp_path)))
    assert contents(tmp_path) == {name: b"a: mine"}


def test_a_mirror_inside_the_output_is_refused(tmp_path):
    with pytest.raises(UserError, match="^mirror=.*output="):
        finetune.main(FinetuneConfig(str(tmp_path), data=DataConfig("nowhere"), mirror=f"{tmp_path}/"))


def test_a_folder_of_view_shards_is_refused_for_latents(dots, tmp_path):
    (tmp_path / "plan.json").write_text(json.dumps({"objects": 1, "listing": "", "renderer.views": 4}))
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"holds plan\.json"):
        encode.main(EncodeConfig(dots, str(tmp_path)))
    assert contents(tmp_path) == before


def test_curves_and_tables_do_not_replace_foreign_files(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,loss,val_loss\n1,0.5,\n")
    for name in ("curves.png", "a.svg", "b.pdf"):
        output = str(tmp_path / name)
        plot.main(PlotConfig([str(tmp_path)], output))
        plot.main(PlotConfig([str(tmp_path)], output))
        (tmp_path / name).write_text("mine")
        with pytest.raises(UserError, match=f"{name}: "):
            plot.main(PlotConfig([str(tmp_path)], output))
    (tmp_path / "benchmark.json").write_text('{"mine": 1}')
    with pytest.raises(UserError, match=r"holds benchmark\.json"):
        benchmark.main(BenchmarkConfig(str(tmp_path), device="cpu"))
    assert {(tmp_path / name).read_text() for name in ("curves.png", "a.svg", "b.pdf")} == {"mine"}


def test_a_foreign_checkpoint_is_refused_as_target(made, tmp_path):
    torch.save({"state_dict": {}, "global_step": 0}, tmp_path / "foreign.ckpt")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    index = json.loads((made / "folder/model_index.json").read_text())
    del index[checkpoint_folder.WRITTEN_BY]
    (foreign / "model_index.json").write_text(json.dumps({**index, "_diffusers_version": "0.17.1"}))
    (tmp_path / "run/model").mkdir(parents=True)
    for name in ("model_index.json", "training.yaml"):
        (tmp_path / "run/model" / name).write_text(json.dumps(index))
    before = contents(tmp_path)
    for target in ("foreign.ckpt", "foreign", "run/model"):
        with pytest.raises(UserError, match="^target="):
            convert.main(ConvertConfig(str(made / "105000.ckpt"), str(tmp_path / target)))
    assert contents(tmp_path) == before


def test_a_checkpoint_of_an_earlier_version_is_recognised(made, tmp_path):
    index = json.loads((made / "folder/model_index.json").read_text())
    del index[checkpoint_folder.WRITTEN_BY]
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    assert checkpoint_folder.is_own(tmp_path)
    (tmp_path / "README.md").touch()  # as a downloaded repository has it
    assert not checkpoint_folder.is_own(tmp_path)


@pytest.mark.parametrize("state", ["between the renames", "after them"])
def test_an_interrupted_replacement_of_a_checkpoint_is_repaired(state, model, tmp_path):
    checkpoint.save(model, tmp_path / "model")
    (tmp_path / "model/notes.txt").write_text("mine")
    (tmp_path / "model").rename(tmp_path / ".model.old")
    if state == "after them":
        checkpoint.write(model, tmp_path / "model")
    with pytest.raises(ZeroDivisionError):  # the earlier checkpoint is restored although the new one fails
        checkpoint_folder.replace_folder(tmp_path / "model", lambda aside: aside.mkdir(parents=True) or 1 // 0)
    assert checkpoint.load(tmp_path / "model") and not (tmp_path / ".model.old").exists()
    checkpoint.save(model, tmp_path / "model")
    assert (tmp_path / "model/notes.txt").read_text() == "mine"


def test_a_second_run_in_one_folder_is_refused_unless_the_first_was_killed(dots, tmp_path):
    words = ["training.finetune", f"data.path={dots}", f"output={tmp_path / 'run'}", *SMALL, "wandb.mode=disabled"]
    first = Started(*words, "trainer.max_steps=100000")
    try:
        next(line for line in first.stdout if line.startswith("step 6/"))
        second = command(*words, "trainer.max_steps=100000")
        assert second.returncode == 2 and f"process {first.pid} on " in second.stderr, second.stderr
        assert len(second.stderr.splitlines()) == 1
    finally:
        first.kill()
        first.wait()
    saved = max(int(path.name) for path in (tmp_path / "run/checkpoints").iterdir() if path.name.isdigit())
    again = command(*words, f"trainer.max_steps={saved + 1}")
    assert again.returncode == 0, again.stderr
    assert not (tmp_path / "run/.lock").exists()
