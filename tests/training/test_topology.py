import pytest

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


def test_topology_is_read_from_the_launcher(monkeypatch):
    assert topology(CPU) == Topology(1, 1, gpu=False)
    assert topology(TrainerConfig(accelerator="cpu", devices=3, num_nodes=2)) == Topology(2, 3, gpu=False)
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
