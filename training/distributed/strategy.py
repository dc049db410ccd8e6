"""How a model is trained on several devices: which of Lightning's strategies, and how it is set up.

Weights stay float32 everywhere, and bfloat16 is autocast: so the averaged weights, whose steps of 1e-4 bfloat16
would swallow, and the losses are the same under each strategy.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from lightning.pytorch.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, SingleDeviceStrategy, Strategy
from torch import Tensor, nn

from conf.options import UserError
from training.config import Strategy as Name
from training.distributed.topology import Topology

# A rank may wait while the first one writes a checkpoint or draws pictures.
TIMEOUT = timedelta(hours=1)


def resolve_strategy(name: Name, world: Topology) -> Name:
    """What `auto` means: nothing to share on one device, ZeRO-2 on several GPUs, DDP on several CPU processes.

    Raises:
        UserError: one device's strategy on several.
    """
    if name is Name.single and world.size > 1:
        raise UserError(f"trainer=single: there are {world.size} processes; use trainer=zero2 or trainer=ddp")
    if name is not Name.auto:
        return name
    return Name.single if world.size == 1 else Name.zero2 if world.gpu else Name.ddp


def build_strategy(name: Name, world: Topology, batch_size: int) -> Strategy:
    environment = _environment()
    backend = "nccl" if world.gpu else "gloo"
    match name:
        case Name.single:
            return SingleDeviceStrategy(device="cuda:0" if world.gpu else "cpu", checkpoint_io=InPlace())
        case Name.ddp:
            return DDPStrategy(
                checkpoint_io=InPlace(),
                cluster_environment=environment,
                process_group_backend=backend,
                timeout=TIMEOUT,
                gradient_as_bucket_view=True,
            )
    if not world.gpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # which DeepSpeed would find out with a warning
        import deepspeed

        # Else it compiles an exchange of its own first, and waits for ever where a killed compiler left its lock.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    stage = {Name.zero1: 1, Name.zero2: 2, Name.zero3: 3}[name]
    zero = (Zero if world.gpu else CpuZero)(
        stage=stage,
        cluster_environment=environment,
        process_group_backend=backend,
        timeout=TIMEOUT,
        logging_batch_size_per_gpu=batch_size,
        exclude_frozen_parameters=True,
    )
    # A small weight would stay whole on every device, and never see that its share was exchanged for the average.
    zero.config["zero_optimization"]["stage3_param_persistence_threshold"] = 0  # type: ignore[index]
    return zero


class InPlace(TorchCheckpointIO):
    """Writes a state where it is to lie, which is aside already. Lightning's own fills the system's temporary folder
    with it first, which may be small, or in memory."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        torch.save(checkpoint, path)


class Zero(DeepSpeedStrategy):
    """DeepSpeed's ZeRO as Lightning has it, but for the mean over the passes of a step, which each of them takes by
    itself: gradients came out too small by their number, and were clipped and shown as such."""

    def backward(self, closure_loss: Tensor, optimizer: Any, *args: Any, **kwargs: Any) -> Tensor:
        return super().backward(closure_loss, optimizer, *args, scale_wrt_gas=False, **kwargs)


class CpuZero(Zero):
    """ZeRO over CPU processes. DeepSpeed can; Lightning refuses in `setup_environment` alone."""

    def setup_environment(self) -> None:
        assert self.parallel_devices
        self.parallel_devices = [torch.device("cpu", i) for i in range(len(self.parallel_devices))]
        super(DeepSpeedStrategy, self).setup_environment()


@contextmanager
def gathered(module: nn.Module) -> Iterator[None]:
    """The whole of every weight, of which ZeRO-3 keeps a share on each device; elsewhere nothing happens."""
    weights: list[Any] = [weight for weight in module.parameters() if hasattr(weight, "ds_tensor")]
    if not weights:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(weights):
        yield


def is_sharded(module: nn.Module) -> bool:
    """Whether a device alone cannot run the model, since it has only a share of the weights (ZeRO-3)."""
    return any(hasattr(weight, "ds_tensor") for weight in module.parameters())


def _environment() -> ClusterEnvironment | None:
    # Within a Slurm job too, torchrun and Ray Train come first, as in training.distributed.topology.
    if "LOCAL_WORLD_SIZE" in os.environ:
        return TorchElasticEnvironment() if TorchElasticEnvironment.detect() else LightningEnvironment()
    # Lightning would otherwise write a checkpoint of its own when Slurm warns of the end, beside ours.
    return SLURMEnvironment(auto_requeue=False) if SLURMEnvironment.detect() else None
