"""Several processes train the same model as one: DeepSpeed over gloo, torchrun, signals."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.command import PROJECT, command
from tests.support.distributed import GLOBAL, assert_same, one_process
from tests.support.small_model import mean_loss
from tests.support.small_run import SMALL, losses
from training.config import DataConfig
from training.data.batches import training_batches
from training.data.sources import read_sources
from training.data.split import split
from training.model.architecture import build
from training.model.checkpoints import checkpoint
from training.model.config import Architecture, ImageEncoderShape, UNetShape
from training.model.zero123 import Prediction


@pytest.fixture(scope="module")
def alone(dots, tmp_path_factory) -> Path:
    return one_process(dots, tmp_path_factory.mktemp("alone") / "run")


def torchrun(nodes: int, *words: str, folders: Sequence[Path] = (PROJECT, PROJECT)) -> list[tuple[int, str]]:
    """Start the command on several machines of one process each, connected on the loopback interface.

    Args:
        nodes: Number of machines.
        words: Arguments of the command.
        folders: Current folder on each machine.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", "PYTHONPATH": str(PROJECT)}
    started = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--nnodes", str(nodes), "--nproc-per-node", "1"),
                *("--node-rank", str(node), "--master-addr", "127.0.0.1", "--master-port", str(port)),
                *("-m", "training.finetune", *words),
            ],
            cwd=folders[node], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for node in range(nodes)
    ]  # fmt: skip
    try:
        return [(process.wait(240), process.communicate()[0]) for process in started]
    finally:
        for process in started:
            process.kill()


@pytest.mark.slow
def test_two_zero2_nodes_stop_resume_and_match_one_process(dots, alone, tmp_path):
    words = [f"data.path={dots}", f"output={tmp_path}/run", *SMALL, *GLOBAL, "data.workers=1", "trainer.strategy=zero2"]
    words += ["trainer.channels_last=true"]  # as for a compiled U-Net; DeepSpeed needs contiguous weights
    for steps in (5, 10):
        ended = torchrun(2, *words, f"trainer.max_steps={steps}")
        assert [code for code, _ in ended] == [0, 0], ended
    printed = ended[0][1].splitlines()
    assert [line.split()[1] for line in printed if "/10" in line] == [f"{step}/10" for step in range(6, 11)]
    assert "step " not in ended[1][1], "one process speaks for all"
    state = tmp_path / "run/checkpoints/00000010/state/checkpoint"
    assert len(list(state.glob("*optim_states.pt"))) == 2, "each keeps its share of the optimiser's state"
    assert_same(tmp_path / "run", alone)


@pytest.mark.slow  # half a minute of two processes
def test_ranks_without_validation_objects_wait_for_the_other(dots, tmp_path):
    """One object is held out, so one of the two ranks has no validation batch."""
    sources = read_sources(dots, "views")
    fractions = (number / 100 for number in range(1, 100))
    fraction = next(f for f in fractions if sum(len(shard.uids) for shard in split(sources, f).validation) == 1)
    words = [f"data.path={dots}", f"output={tmp_path}/run", *SMALL, *GLOBAL, f"data.validation_fraction={fraction}"]
    words += ["trainer=ddp", "trainer.devices=2", "trainer.max_steps=2", "trainer.validate_every=1"]
    done = command("training.finetune", *words, timeout=240)
    assert done.returncode == 0, done.stderr
    assert len(losses(tmp_path / "run", "val_loss")) == 2


@pytest.mark.slow
def test_padding_of_shards_is_not_taken_for_weights(dots, tmp_path):
    """Three ranks share 16 numbers, so the last shard has padding, which torch fills with NaN in deterministic runs."""
    words = [f"data.path={dots}", f"output={tmp_path}/run", *SMALL, "trainer=zero3", "trainer.devices=3"]
    words += ["data.global_batch=3", "trainer.max_steps=2", "trainer.deterministic=true", "wandb.mode=disabled"]
    done = command("training.finetune", *words)
    assert done.returncode == 0, done.stderr
    assert torch.isfinite(torch.cat([w.flatten() for w in checkpoint.load(tmp_path / "run/model").parameters()])).all()


@pytest.mark.slow
def test_an_output_that_machines_do_not_share_is_refused(dots, tmp_path):
    """Under ZeRO at the start, and under DDP where a checkpoint of rank zero is to be continued."""
    folders = (tmp_path / "one", tmp_path / "two")
    for folder in folders:
        folder.mkdir()
    words = [f"data.path={dots}", *SMALL, *GLOBAL, "data.workers=1"]
    refused = torchrun(2, *words, "trainer=zero2", "output=zero", folders=folders)
    assert all(code and "not one folder" in printed for code, printed in refused), refused
    assert not any(path.is_file() for path in tmp_path.glob("*/zero/checkpoints/*"))
    words += ["trainer=ddp", "output=ddp"]
    assert [code for code, _ in torchrun(2, *words, "trainer.max_steps=5", folders=folders)] == [0, 0]
    saved = sorted(path.name for path in (folders[0] / "ddp/checkpoints").iterdir())
    refused = torchrun(2, *words, folders=folders)
    assert all(code and "different checkpoints" in printed for code, printed in refused), refused
    assert sorted(path.name for path in (folders[0] / "ddp/checkpoints").iterdir()) == saved


TORCHRUN = ["+cluster=torchrun", "trainer=ddp", "trainer.devices=2"]


@pytest.mark.parametrize("launcher", [["data.workers=2"], pytest.param(TORCHRUN, marks=pytest.mark.slow)])
def test_first_step_uses_the_documented_seeds(launcher, dots, tmp_path):
    """One process in two passes, and two processes with torchrun's preset on a CPU, have the loss and gradient norm
    that follow from docs/conventions.md, "Pairs and their order"."""
    words = [word for word in SMALL if not word.startswith("trainer.precision")]
    words += ["data.batch_size=2", "data.global_batch=4", "trainer.log_every=1", "trainer.max_steps=1"]
    done = command("training.finetune", f"data.path={dots}", f"output={tmp_path}/run", *words, *launcher)
    assert done.returncode == 0, done.stderr

    shape = UNetShape(channels=[16, 32], attention=[False, True], layers=1, heads=2, groups=8)
    encoder = ImageEncoderShape(image_size=16, patch_size=8, width=64, layers=2, heads=4, projection=64)
    model = build(Architecture(16, 2, prediction=Prediction.sample, unet=shape, encoder=encoder), seed=0)
    halves = split(read_sources(dots, "views"), 0.2)
    data = DataConfig(path=dots, batch_size=2, workers=0)
    loss = torch.zeros(())
    for number in range(2):
        batch = next(iter(training_batches(data, halves.training, 16, seed=0, rank=number, ranks=2)))
        seed = int(np.random.SeedSequence([0, number, 0]).generate_state(1)[0])
        loss = loss + mean_loss(model, batch, torch.Generator().manual_seed(seed)) / 2
    loss.backward()
    norm = torch.nn.utils.get_total_norm([w.grad for w in model.parameters() if w.grad is not None])
    assert losses(tmp_path / "run") == pytest.approx([loss.item()], rel=1e-5)
    assert losses(tmp_path / "run", "grad_norm") == pytest.approx([norm.item()], rel=1e-4)


@pytest.fixture(scope="module")
def alone_in_passes(dots, tmp_path_factory) -> Path:
    return one_process(dots, tmp_path_factory.mktemp("passes") / "run", "data.batch_size=1")


@pytest.mark.parametrize(
    "strategy", ["zero2", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ddp", "zero1", "zero3"))]
)
def test_gradient_accumulation_in_two_processes_matches_one(strategy, dots, alone_in_passes, tmp_path):
    """Gradients are clipped, so that their size affects the result as well as their direction."""
    words = [f"data.path={dots}", f"output={tmp_path}/run", *SMALL, *GLOBAL, "data.workers=1", "data.batch_size=1"]
    done = command("training.finetune", *words, f"trainer={strategy}", "trainer.devices=2")
    assert done.returncode == 0, done.stderr
    assert "8 pairs a step: 4 × 1 on each device" in done.stdout
    assert_same(tmp_path / "run", alone_in_passes)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "zero2"])
def test_compiled_run_matches_the_uncompiled_one(strategy, dots, alone_in_passes, tmp_path):
    words = [f"data.path={dots}", f"output={tmp_path}/run", *SMALL, *GLOBAL, "data.workers=1", "data.batch_size=1"]
    words += [f"trainer={strategy}", "trainer.devices=2", "trainer.compile=true"]
    done = command("training.finetune", *words)
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "run", alone_in_passes)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "zero1", "zero3"])
def test_two_processes_match_one(strategy, dots, alone, tmp_path):
    output = tmp_path / "run"
    words = [f"data.path={dots}", f"output={output}", *SMALL, *GLOBAL, "data.workers=1", "trainer.devices=2"]
    for steps in (5, 10):
        done = command("training.finetune", *words, f"trainer={strategy}", f"trainer.max_steps={steps}")
        assert done.returncode == 0, done.stderr
    assert_same(output, alone, same_validation=strategy == "zero3")


@pytest.mark.slow
def test_a_signal_to_one_rank_stops_both_and_saves_the_state(dots, alone, tmp_path):
    output = tmp_path / "run"
    words = [f"data.path={dots}", f"output={output}", *SMALL, *GLOBAL, "data.workers=1", "trainer=zero2"]
    words += ["trainer.devices=2", "trainer.checkpoint_every=1000"]
    started = subprocess.Popen(
        [sys.executable, "-m", "training.finetune", *words], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    )
    assert started.stdout
    assert any(line.startswith("step 2/10") for line in started.stdout)
    started.send_signal(signal.SIGTERM)
    assert started.wait(180) == 130
    (stopped,) = (output / "checkpoints").iterdir()
    assert 2 <= int(stopped.name) < 10
    done = command("training.finetune", *words)
    assert done.returncode == 0, done.stderr
    assert_same(output, alone)


@pytest.mark.slow
def test_a_checkpoint_of_another_strategy_is_refused(dots, tmp_path):
    words = [f"data.path={dots}", f"output={tmp_path}/run", *SMALL, *GLOBAL, "trainer.max_steps=2"]
    assert command("training.finetune", *words, "trainer=zero2").returncode == 0
    refused = command("training.finetune", *words, "trainer=single", "trainer.max_steps=4")
    assert refused.returncode == 2
    assert "error: trainer=single on 1 devices" in refused.stderr and "trainer=zero2 on 1 devices" in refused.stderr


class Bomb:
    """Write a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "executed")


@pytest.mark.slow
def test_code_in_a_state_of_zero_is_not_executed(dots, tmp_path):
    words = [f"data.path={dots}", f"output={tmp_path}/run", *SMALL, "trainer=zero2", "wandb.mode=disabled"]
    words += ["trainer.validate_every=0", "trainer.checkpoint_every=1"]
    assert command("training.finetune", *words, "trainer.max_steps=1").returncode == 0
    (part,) = (tmp_path / "run/checkpoints/00000001/state/checkpoint").glob("*optim_states.pt")
    intact = part.read_bytes()
    torch.save({"optimizer_state_dict": Bomb(tmp_path / "bomb")}, part)
    refused = command("training.finetune", *words, "trainer.max_steps=2")
    assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 1, refused.stderr
    assert not (tmp_path / "bomb").exists()
    part.write_bytes(intact)
    done = command("training.finetune", *words, "trainer.max_steps=2")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_torchrun_script_matches_one_process_and_stops_all_ranks_on_a_signal(dots, alone, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [f"data.path={dots}", f"output={tmp_path}/run", *SMALL, *GLOBAL, "data.workers=1"]
    env = {**os.environ, "BIN": str(Path(sys.executable).parent), "NODES": "2", "HEAD": "127.0.0.1"}
    env |= {"PORT": str(port), "PROCESSES": "1", "OMP_NUM_THREADS": "1"}

    def start() -> list[subprocess.Popen[str]]:
        script = [PROJECT / "jobs/train-torchrun.sh", *words, "trainer.checkpoint_every=1000"]
        return [
            subprocess.Popen(script, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            for _ in range(2)
        ]

    nodes = start()
    metrics = tmp_path / "run/metrics.csv"
    while not metrics.exists() or len(metrics.read_text().splitlines()) < 3:
        assert all(node.poll() is None for node in nodes), [node.communicate() for node in nodes]
        time.sleep(0.05)
    nodes[0].send_signal(signal.SIGTERM)
    assert all(node.wait(120) != 0 for node in nodes)
    (stopped,) = (tmp_path / "run/checkpoints").iterdir()
    assert 2 <= int(stopped.name) < 10
    nodes = start()
    ended = [(node.communicate(timeout=240)[0], node.returncode) for node in nodes]
    assert [code for _, code in ended] == [0, 0], ended
    assert_same(tmp_path / "run", alone)
