"""The command training.finetune on dotted objects, with a model of a few thousand weights."""

import os
import resource
import shutil
import signal
import tempfile
import time
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from conf.options import UserError
from tests.support.command import Started, command
from tests.support.dots import write_dots
from tests.support.finetune import configured, train
from tests.support.small_run import SMALL, rows
from tests.support.tracked import artifacts, tracked
from training.callbacks.metrics import COLUMNS, _truncate_rows
from training.model.checkpoints import checkpoint
from training.run_config import record_run, require_same_run


@pytest.fixture(scope="module")
def run(dots, tmp_path_factory) -> Path:
    """Forty steps on the command line: killed after the first checkpoint, asked to end some steps later, finished;
    by the same command each time."""
    output = tmp_path_factory.mktemp("run") / "run"
    words = ["training.finetune", f"data.path={dots}", f"output={output}", *SMALL, "trainer.max_steps=40"]

    killed = Started(*words)
    first, deadline = output / "checkpoints/00000005", time.monotonic() + 120
    while not first.exists() and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    killed.kill()
    killed.communicate()
    assert first.exists() and not (output / "model").exists()
    (output / "checkpoints/00000039.part").mkdir()  # as a kill while it is written leaves it

    asked = Started(*words)
    line = next(line for line in asked.stdout if line.startswith("step "))
    assert 5 < int(line.split("/")[0].removeprefix("step ")) < 40, "it does not begin again"
    asked.send_signal(signal.SIGTERM)
    assert asked.wait(60) == 130
    stopped = max(int(path.name) for path in (output / "checkpoints").iterdir() if path.name.isdigit())
    assert stopped < 40 and not (output / "model").exists()

    done = command(*words)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines.pop(0) == "4 pairs a step: 1 × 4 on each device, float32"
    assert lines.pop(0).startswith("memory per device: about ")
    assert lines[0].startswith("step ") and "/40  loss " in lines[0] and lines[0].endswith(" left")
    assert stopped < int(lines[0].split("/")[0].removeprefix("step ")) <= stopped + 2
    assert lines[-1] == (
        f"model: {output}/model; sample from it: python -m inference.sample checkpoint={output}/model "
        "image=… 'poses=[[20,45,0]]' output=outputs/views"
    )
    assert done.stderr == ""
    return output


def test_an_interrupted_run_equals_an_uninterrupted_one(run, dots, tmp_path):
    train(dots, tmp_path / "run", "trainer.max_steps=40")
    columns = ("step", "loss", "loss_smooth", "grad_norm", "lr", *(f"loss_quarter_{i}" for i in (1, 2, 3, 4)))
    # The smoothed loss restarts from a row that the killed session did not write.
    columns = tuple(column for column in columns if column != "loss_smooth")
    one, two = ([[row[c] for c in columns] for row in rows(r) if row["loss"]] for r in (run, tmp_path / "run"))
    differing = [a for a, b in zip(one, two, strict=True) if a != b]
    # The first row after a stop between two rows is the mean of fewer batches.
    assert len(differing) <= 2
    first, second = (checkpoint.load(r / "model").state_dict() for r in (run, tmp_path / "run"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_writes_the_documented_files(run):
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
    assert {path.name for path in (run / "checkpoints").iterdir() if path.name.isdigit()} == {"00000035", "00000040"}
    best = yaml.safe_load((run / "best/training.yaml").read_text())["validation"]
    assert best["loss"] == pytest.approx(min(validations.values()), abs=1e-5)
    assert validations[str(best["step"])] == pytest.approx(best["loss"], abs=1e-5)
    assert checkpoint.load(run / "best").resolution == 16
    sessions = list(run.glob("wandb/offline-run-*"))
    assert len(sessions) == 3 and len({path.name.rsplit("-", 1)[1] for path in sessions}) == 1, "one run for W&B"


def test_wandb_holds_metrics_images_and_model(run):
    session = max(run.glob("wandb/offline-run-*"), key=lambda path: path.stat().st_mtime)
    run_id, config, history = tracked(session)
    assert config["optimizer"]["warmup_steps"] == 50 and session.name.endswith(run_id)
    shown = set().union(*history)
    assert shown >= {"loss", "loss_smooth", "loss_quarter_1", "loss_quarter_4", "val_loss", "lr", "lr_projection"}
    assert shown >= {"grad_norm", "images_per_second", "dropped"}
    assert any(name.startswith("input | truth | sample") for name in shown), "pictures as well"
    last = [row for row in rows(run) if row["loss"]][-1]
    assert [row["loss"] for row in history if "loss" in row][-1] == pytest.approx(float(last["loss"]), abs=1e-5)
    ((name, files, _),) = artifacts(session)
    assert name == "run-model" and "unet/diffusion_pytorch_model.safetensors" in files


def test_the_model_folder_holds_the_averaged_weights(run):
    state = torch.load(run / "checkpoints/00000040/state", weights_only=True)
    unet = checkpoint.load(run / "model").unet
    assert all(torch.equal(a, b) for a, b in zip(unet.parameters(), state["ema"]["shadow"], strict=True))
    assert not torch.equal(unet.conv_in.weight, state["state_dict"]["model.unet.conv_in.weight"])
    assert not any(name.startswith(("model.vae", "model.image_encoder")) for name in state["state_dict"])


def test_a_second_interrupt_stops_at_once(dots, tmp_path):
    words = ["training.finetune", f"data.path={dots}", f"output={tmp_path}", *SMALL, "trainer.max_steps=4000"]
    words += ["wandb.mode=disabled", "data.batch_size=1", "data.global_batch=200"]  # steps of seconds
    running = Started(*words, "trainer.log_every=1")
    assert any(line.startswith("step 1/") for line in running.stdout)
    for _ in range(2):
        time.sleep(0.3)  # the line is printed at the end of a step; signal during the next one
        running.send_signal(signal.SIGINT)
    assert running.wait(30) == 130
    assert running.communicate()[1] == "\nstopped; repeat the command to continue\n"


def test_a_run_resumed_with_smaller_passes_has_whole_steps(dots, tmp_path):
    words = ["data.global_batch=8", "data.validation_fraction=0.2", "trainer.validate_every=2", "data.workers=0"]
    train(dots, tmp_path, *words, "data.batch_size=8", "trainer.max_steps=3")
    train(dots, tmp_path, *words, "data.batch_size=4", "trainer.max_steps=5")
    state = torch.load(tmp_path / "checkpoints/00000005/state", weights_only=True)
    assert state["position"]["used"] == [5 * 8]
    assert [row["step"] for row in rows(tmp_path) if row["val_loss"]] == ["2", "4"]


def test_a_finished_run_is_reported(run, dots, capsys):
    before, record = (run / "model/model_index.json").stat().st_mtime_ns, (run / "training.yaml").read_bytes()
    for steps in (40, 30):
        assert train(dots, run, f"trainer.max_steps={steps}") == 0
        assert f"{run} is finished: 40 steps" in capsys.readouterr().out
    assert (run / "model/model_index.json").stat().st_mtime_ns == before
    assert (run / "training.yaml").read_bytes() == record


def test_the_output_of_another_configuration_is_refused(run, dots):
    with pytest.raises(UserError, match=r"optimizer.lr=0.5: "):
        train(dots, run, "trainer.max_steps=50", "optimizer.lr=0.5")


def test_equivalent_paths_continue_the_same_run(dots, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(dots)
    (tmp_path / "other").mkdir()
    (tmp_path / "run/model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)

    def begin(data, place="link") -> None:
        words = [f"data.path={data}", f"model.pretrained={place}", f"model.image_encoder={place}", *SMALL]
        require_same_run(tmp_path / "run", configured(*words))
        record_run(tmp_path / "run", configured(*words))

    begin(dots)
    for path in (f"{dots}/", os.path.relpath(dots), f"./{os.path.relpath(dots)}/.", "link", dots):
        begin(path, path)
    for option, values in (("data.path", ("other", "link")), ("model.image_encoder", ("link", "other"))):
        with pytest.raises(UserError, match=f"^{option}="):
            begin(*values)


def test_a_run_recorded_with_an_options_former_name_is_continued(dots, tmp_path):
    run = tmp_path / "run"
    (run / "model").mkdir(parents=True)
    record_run(run, configured(f"data.path={dots}", "data.exclude=[flat]", *SMALL))
    record = run / "training.yaml"
    record.write_text(record.read_text().replace("  exclude:", "  without:"))
    with pytest.raises(UserError, match=r"data\.exclude"):
        require_same_run(run, configured(f"data.path={dots}", *SMALL))
    require_same_run(run, configured(f"data.path={dots}", "data.exclude=[flat]", *SMALL))


def test_a_failed_start_does_not_claim_the_output(dots, tmp_path):
    with pytest.raises(UserError, match=r"channels=\[16\]"):
        train(dots, tmp_path / "run", "model.unet.channels=[16]")
    assert train(dots, tmp_path / "run", "trainer.max_steps=1") == 0


@pytest.fixture
def five(dots, tmp_path) -> Path:
    """A run of five steps, its first checkpoint and its model."""
    assert train(dots, tmp_path / "run", "trainer.max_steps=5") == 0
    return tmp_path / "run"


@pytest.mark.parametrize("often", ["trainer.log_every=1", "trainer.checkpoint_every=1"])
def test_a_diverged_run_fails_and_saves_nothing(often, five, dots):
    path = five / "checkpoints/00000005/state"
    state = torch.load(path, weights_only=True)
    state["state_dict"]["model.unet.conv_in.bias"][0] = float("nan")
    torch.save(state, path)
    before = (five / "best/training.yaml").read_text(), (five / "model/training.yaml").read_text()
    with pytest.raises(UserError, match="^output=.*: at step 6 "):
        train(dots, five, "trainer.max_steps=20", "trainer.log_every=100", often)
    assert [path.name for path in (five / "checkpoints").iterdir()] == ["00000005"]
    assert ((five / "best/training.yaml").read_text(), (five / "model/training.yaml").read_text()) == before


def test_final_model_is_written_before_the_last_checkpoint(five, dots, capsys):
    """Otherwise a kill between the two writes would leave a finished run without a model."""
    last = five / "checkpoints/00000005"
    assert (five / "model").stat().st_mtime_ns < (last / "saved.json").stat().st_mtime_ns
    capsys.readouterr()
    assert train(dots, five, "trainer.max_steps=3") == 0
    assert capsys.readouterr().out.startswith(f"{five} is finished: 5 steps")
    shutil.rmtree(five / "model")
    with pytest.raises(UserError, match="^trainer.max_steps=5: .*00000005"):
        train(dots, five, "trainer.max_steps=5")


def test_damaged_checkpoints_and_records_are_refused(five, dots):
    state = five / "checkpoints/00000005/state"
    state.write_bytes(state.read_bytes()[:-100])
    with pytest.raises(UserError, match="00000005 is damaged"):
        train(dots, five, "trainer.max_steps=6")
    (five / "training.yaml").write_text("[1]")
    with pytest.raises(UserError, match="output=.*training.yaml"):
        train(dots, five, "trainer.max_steps=6")


def test_a_state_that_cannot_be_written_is_removed(five, dots, monkeypatch, tmp_path):
    """The disk is full after some bytes; nothing is written to the system's temporary folder."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "there-is-no-such-folder"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))  # less than a state has
    try:
        with pytest.raises(UserError, match="checkpoints cannot be written, its disk may be full"):
            train(dots, five, "trainer.max_steps=12")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in (five / "checkpoints").iterdir()] == ["00000005"]
    assert train(dots, five, "trainer.max_steps=6") == 0, "the same command continues"


@pytest.mark.parametrize("damage", ["12,3\n", "x,y\n", ",".join("1" * 30) + "\n", "\xff\n", "8,"])
def test_an_incomplete_row_of_metrics_is_dropped(damage, tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(",".join(COLUMNS) + "\n2" + ",1" * (len(COLUMNS) - 1) + "\n" + damage)
    assert _truncate_rows(path, last_step=100) == 1
    assert [row["step"] for row in rows(tmp_path)] == ["2"] and list(tmp_path.iterdir()) == [path]


def test_a_best_model_of_another_configuration_is_refused(five, dots):
    for name in ("checkpoints", "model"):  # as a kill before the first checkpoint leaves it
        shutil.rmtree(five / name)
    with pytest.raises(UserError, match="^optimizer.lr="):
        train(dots, five, "trainer.max_steps=5", "optimizer.lr=0.5")


def test_resuming_in_another_memory_layout_converts_the_moments(dots, tmp_path):
    """Another `trainer.compile` or device changes the layout; fused AdamW pairs elements by memory offset."""
    for steps, last in ((5, "false"), (7, "true")):
        train(dots, tmp_path, f"trainer.max_steps={steps}", f"trainer.channels_last={last}")
    state = torch.load(tmp_path / "checkpoints/00000007/state", weights_only=True)
    shapes = {tuple(w.shape): w.stride() for w in state["state_dict"].values() if w.ndim == 4 and w.shape[2] == 3}
    moments = [m["exp_avg"] for m in state["optimizer_states"][0]["state"].values() if m["exp_avg"].ndim == 4]
    averages = [average for average in state["ema"]["shadow"] if average.ndim == 4]
    assert len(moments) == len(averages) > 10 and all(stride[1] == 1 for stride in shapes.values())
    for tensor in (*moments, *averages):
        assert tensor.stride() == shapes.get(tuple(tensor.shape), tensor.stride())


def test_pictures_are_drawn_once_a_step_whatever_its_passes(dots, tmp_path):
    train(dots, tmp_path, "trainer.max_steps=4", "trainer.sample_every=2", "data.batch_size=2")
    assert {path.name for path in (tmp_path / "samples").iterdir()} == {"000002.png", "000004.png"}


def test_a_continued_run_has_the_weights_of_an_uninterrupted_one(tmp_path, capsys):
    """A third of the data is unreadable, so batches do not align with shards or epochs."""
    write_dots(tmp_path / "data", objects=12)
    (tmp_path / "data/views-000001.tar").unlink()
    whole, parts, bound = tmp_path / "whole", tmp_path / "parts", "data.max_bad_rate=0.6"
    train(tmp_path / "data", whole, bound, "trainer.max_steps=15")
    train(tmp_path / "data", parts, bound, "trainer.max_steps=10")
    capsys.readouterr()
    train(tmp_path / "data", parts, bound, "trainer.max_steps=15")
    first = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("step "))
    assert first.startswith("step 12/15"), "ten steps were not trained again"
    one, two = (checkpoint.load(output / "model").state_dict() for output in (whole, parts))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert [row["loss"] for row in rows(whole)][-2:] == [row["loss"] for row in rows(parts)][-2:]
    assert not (whole / "wandb").exists()


def test_a_run_that_is_made_longer_learns_from_its_next_step(dots, tmp_path):
    """The rate decays to zero at the end of the shorter run."""
    for steps in (10, 11):
        train(dots, tmp_path, f"trainer.max_steps={steps}", "optimizer.decay=0.5", "optimizer.warmup_steps=1")
    states = (torch.load(tmp_path / f"checkpoints/{step:08d}/state", weights_only=True) for step in (10, 11))
    before, after = (state["state_dict"]["model.unet.conv_in.weight"] for state in states)
    assert not torch.equal(before, after)


def test_training_learns(tmp_path):
    """After sixty steps on eight objects the validation loss is below 0.8 of the first one."""
    write_dots(tmp_path / "data", objects=8)
    words = ["trainer.max_steps=60", "optimizer.lr=3e-3", "optimizer.warmup_steps=10", "optimizer.ema_decay=0.9"]
    train(tmp_path / "data", tmp_path / "run", *words)
    losses = [float(row["val_loss"]) for row in rows(tmp_path / "run") if row["val_loss"]]
    assert losses[-1] < 0.8 * losses[0]
