"""The Lightning strategies for one or several devices, and their settings.

Weights are float32 under every strategy, and bfloat16 is autocast: updates of the moving average are as small as
1e-4, which bfloat16 weights would round to zero.
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

COLLECTIVE_TIMEOUT = timedelta(hours=1)  # other ranks wait while rank zero writes a checkpoint or samples images


def resolve_strategy(name: Name, topology: Topology) -> Name:
    """Return the strategy of `auto`: single on one device, ZeRO-2 on several GPUs, DDP on several CPU processes.

    Raises:
        UserError: The strategy for one device is requested for several.
    """
    if name is Name.single and topology.size > 1:
        raise UserError(f"trainer=single: there are {topology.size} processes; use trainer=zero2 or trainer=ddp")
    if name is not Name.auto:
        return name
    return Name.single if topology.size == 1 else Name.zero2 if topology.gpu else Name.ddp


def build_strategy(name: Name, topology: Topology, batch_size: int) -> Strategy:
    """Return the Lightning strategy of a resolved name.

    Args:
        name: The strategy, not `auto`.
        topology: The processes of the run.
        batch_size: Pairs per device and pass.
    """
    environment = _cluster_environment()
    backend = "nccl" if topology.gpu else "gloo"
    match name:
        case Name.single:
            return SingleDeviceStrategy(device="cuda:0" if topology.gpu else "cpu", checkpoint_io=DirectCheckpointIO())
        case Name.ddp:
            return DDPStrategy(
                checkpoint_io=DirectCheckpointIO(),
                cluster_environment=environment,
                process_group_backend=backend,
                timeout=COLLECTIVE_TIMEOUT,
                gradient_as_bucket_view=True,
                broadcast_buffers=False,  # they are constants, and a rank may have no validation batch
            )
    if not topology.gpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # DeepSpeed's own detection prints a warning
        import deepspeed

        # DeepSpeed would compile this operation, and hang if an interrupted compilation left its lock file.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    stage = {Name.zero1: 1, Name.zero2: 2, Name.zero3: 3}[name]
    zero = (Zero if topology.gpu else CpuZero)(
        stage=stage,
        cluster_environment=environment,
        process_group_backend=backend,
        timeout=COLLECTIVE_TIMEOUT,
        logging_batch_size_per_gpu=batch_size,
        exclude_frozen_parameters=True,
    )
    # Below the threshold a weight stays whole on every device, and swapping its shard for the average has no effect.
    assert zero.config
    zero.config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    zero.config["timers"] = {"throughput": {"enabled": False}}  # it waits for the device in every pass
    return zero


class DirectCheckpointIO(TorchCheckpointIO):
    """Write a state directly to its path.

    Lightning's own writes it to the system's temporary folder first, which may be small or in memory. `Checkpoints`
    makes the write atomic.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a state."""
        torch.save(checkpoint, path)


class Zero(DeepSpeedStrategy):
    """DeepSpeed's ZeRO with gradients averaged once over the passes of a step.

    Lightning and DeepSpeed both divide the loss by the number of passes, which makes the gradients too small.
    """

    def backward(self, closure_loss: Tensor, optimizer: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Run the backward pass without DeepSpeed's division."""
        return super().backward(closure_loss, optimizer, *args, scale_wrt_gas=False, **kwargs)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Load a state. DeepSpeed would execute code in its pickles, which may come from a mirror."""
        from deepspeed.runtime.fp16.loss_scaler import LossScaler
        from deepspeed.runtime.zero.config import ZeroStageEnum
        from deepspeed.utils.tensor_fragment import fragment_address

        classes = torch.serialization.safe_globals([LossScaler, ZeroStageEnum, fragment_address])
        with classes, _environment("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1"):
            return super().load_checkpoint(checkpoint_path, weights_only)


class CpuZero(Zero):
    """ZeRO over CPU processes. DeepSpeed supports it; only Lightning's `setup_environment` refuses."""

    def setup_environment(self) -> None:
        """Set up the process group for CPU devices."""
        assert self.parallel_devices
        self.parallel_devices = [torch.device("cpu", i) for i in range(len(self.parallel_devices))]
        super(DeepSpeedStrategy, self).setup_environment()


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Set an environment variable for the duration of the context."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


@contextmanager
def gathered(module: nn.Module) -> Iterator[None]:
    """Gather the weights that ZeRO-3 shards, for the duration of the context; without ZeRO-3, do nothing."""
    weights: list[Any] = [weight for weight in module.parameters() if hasattr(weight, "ds_tensor")]
    if not weights:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(weights):
        yield


def is_sharded(module: nn.Module) -> bool:
    """Return whether each device holds only a shard of the weights (ZeRO-3), so that forward passes need all."""
    return any(hasattr(weight, "ds_tensor") for weight in module.parameters())


def _cluster_environment() -> ClusterEnvironment | None:
    # torchrun and Ray Train take precedence over Slurm, as in training.distributed.topology.
    if "LOCAL_WORLD_SIZE" in os.environ:
        return TorchElasticEnvironment() if TorchElasticEnvironment.detect() else LightningEnvironment()
    # With auto_requeue, Lightning would write its own checkpoint when Slurm signals the end of the job.
    return SLURMEnvironment(auto_requeue=False) if SLURMEnvironment.detect() else None
