import pytest
import torch

from conf.options import UserError
from training.config import Strategy, TrainerConfig
from training.distributed.strategy import resolve_strategy
from training.distributed.topology import BatchPlan, Topology, is_rank_zero, plan_batches, topology

CPU = TrainerConfig(accelerator="cpu")


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "SLURM_NTASKS", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("total_pairs", "max_pairs", "devices", "size", "passes"),
    [
        (1536, 192, 8, 192, 1),  # the paper's
        (1536, 192, 64, 24, 1),
        (1536, 32, 1, 32, 48),
        (1536, 50, 8, 48, 4),  # 192 = 4 × 48: the largest of at most 50 that divides it
        (7, 4, 1, 1, 7),
        (16, 16, 2, 8, 1),
        (5, 32, 1, 5, 1),
        (13, 6, 1, 1, 13),
    ],
)
def test_global_batch_is_independent_of_the_devices(total_pairs, max_pairs, devices, size, passes):
    assert plan_batches(total_pairs, max_pairs, devices) == BatchPlan(size, passes)
    assert size * passes * devices == total_pairs


def test_an_indivisible_global_batch_is_refused_with_a_divisible_one():
    with pytest.raises(UserError, match="^data.global_batch=1536: .*1533$"):
        plan_batches(1536, 32, 7)
    with pytest.raises(UserError, match="^data.global_batch=1: .*8$"):
        plan_batches(1, 32, 8)


@pytest.mark.parametrize(
    ("total_pairs", "max_pairs", "devices", "nearest"), [(1528, 32, 8, 1520), (1528, 192, 8, None), (74, 32, 1, 75)]
)
def test_a_global_batch_of_tiny_passes_is_refused_with_the_nearest_better_one(total_pairs, max_pairs, devices, nearest):
    if nearest is None:
        assert plan_batches(total_pairs, max_pairs, devices) == BatchPlan(191, 1)
        return
    with pytest.raises(UserError, match=f"^data.global_batch={total_pairs}: .*={nearest}$"):
        plan_batches(total_pairs, max_pairs, devices)
    assert plan_batches(nearest, max_pairs, devices).size >= max_pairs / 2


def test_topology_is_read_from_the_launcher(monkeypatch):
    assert topology(CPU) == Topology(1, 1, gpu=False)
    with pytest.raises(UserError, match="^trainer.num_nodes=2: "):
        topology(TrainerConfig(accelerator="cpu", devices=3, num_nodes=2))
    assert topology(TrainerConfig(accelerator="cpu", devices=3, num_nodes=1)) == Topology(1, 3, gpu=False)
    monkeypatch.setenv("SLURM_NTASKS", "6")
    monkeypatch.setenv("SLURM_NNODES", "3")
    monkeypatch.setenv("SLURM_PROCID", "5")
    assert topology(CPU) == Topology(3, 2, gpu=False) and not is_rank_zero()
    monkeypatch.setenv("WORLD_SIZE", "16")  # torchrun's variables take precedence over Slurm's
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    monkeypatch.setenv("RANK", "0")
    assert topology(CPU) == Topology(2, 8, gpu=False) and is_rank_zero()
    with pytest.raises(UserError, match="^trainer.devices=4: .*8"):
        topology(TrainerConfig(accelerator="cpu", devices=4))


def test_tasks_that_see_one_gpu_each_are_refused_as_such(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("SLURM_NTASKS", "16")
    monkeypatch.setenv("SLURM_NNODES", "2")
    with pytest.raises(UserError, match="--gpus-per-task"):
        topology(TrainerConfig())
    monkeypatch.delenv("SLURM_NTASKS")
    with pytest.raises(UserError, match="^trainer.devices=8: "):
        topology(TrainerConfig(devices=8))


def test_a_shell_inside_a_slurm_job_is_one_process(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "6")
    monkeypatch.setenv("SLURM_JOB_NAME", "bash")
    assert topology(CPU) == Topology(1, 1, gpu=False)


def test_strategy_auto_depends_on_devices():
    assert resolve_strategy(Strategy.auto, Topology(1, 1, gpu=True)) is Strategy.single
    assert resolve_strategy(Strategy.auto, Topology(1, 8, gpu=True)) is Strategy.zero2
    assert resolve_strategy(Strategy.auto, Topology(2, 1, gpu=True)) is Strategy.zero2
    assert resolve_strategy(Strategy.auto, Topology(1, 2, gpu=False)) is Strategy.ddp
    assert resolve_strategy(Strategy.zero3, Topology(1, 1, gpu=False)) is Strategy.zero3
    with pytest.raises(UserError, match="^trainer=single: .*2"):
        resolve_strategy(Strategy.single, Topology(1, 2, gpu=True))
