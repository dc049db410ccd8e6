"""The model as Lightning trains it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.strategies import DeepSpeedStrategy
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from conf.options import UserError
from training.acceleration import uncompiled
from training.config import FinetuneConfig
from training.data.pair_stream import training_batches, validation_batches
from training.data.split import Split
from training.data.stream_state import StreamState, merged
from training.distributed.strategy import is_sharded
from training.distributed.topology import BatchPlan
from training.ema import Ema
from training.model.zero123 import Pairs, Zero123
from training.optimizer import adamw, lay_out, lr_factor


class Finetuning(L.LightningModule):
    """Objective, optimiser and data of a run. Every batch has a random generator of its own, seeded by its number
    among those of all devices: a resumed run draws what an uninterrupted one would have drawn, and eight devices
    what one would.
    """

    def __init__(
        self, model: Zero123, split: Split, config: FinetuneConfig, batches: BatchPlan, compute: torch.dtype
    ) -> None:
        super().__init__()
        self.model, self.split, self.config, self.batches, self.compute = model, split, config, batches, compute
        self.ema = Ema(model.unet, config.optimizer.ema_decay)
        self.strict_loading = False  # the frozen parts are not in a checkpoint
        self.position = StreamState()
        self._validation: list[Tensor] = []
        self._averaged: AbstractContextManager[None] = nullcontext()
        self._gradient_norm: Tensor | None = None

    def on_train_start(self) -> None:
        self.ema.begin()
        if not isinstance(self.trainer.strategy, DeepSpeedStrategy):  # whose moments are one long row
            for optimizer in self.trainer.optimizers:
                lay_out(optimizer)

    def training_step(self, batch: Pairs, batch_index: int) -> dict[str, Tensor]:
        with self.autocast():
            losses_B, timesteps_B = self.model.losses(batch, self.generator(batch_index))
        return {"loss": losses_B.mean(), "losses": losses_B.detach(), "timesteps": timesteps_B}

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        # Before clipping. DeepSpeed's gradients lie elsewhere.
        if not isinstance(self.trainer.strategy, DeepSpeedStrategy):
            gradients = [weight.grad for weight in self.parameters() if weight.grad is not None]
            self._gradient_norm = torch.nn.utils.get_total_norm(gradients, foreach=True)

    def gradient_norm(self) -> float | None:
        """That of the last step, over all devices' pairs; None where the strategy does not say."""
        if isinstance(self.trainer.strategy, DeepSpeedStrategy):
            self._gradient_norm = self.trainer.strategy.deepspeed_engine.get_global_grad_norm()
        return None if self._gradient_norm is None else float(self._gradient_norm)

    def optimizer_step(self, epoch: int, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(epoch, batch_idx, *args, **kwargs)
        # DeepSpeed is asked after every batch and knows itself when a step is due.
        if (batch_idx + 1) % self.batches.accumulate == 0:
            self.ema.update()

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        if self.trainer.training:  # here, where reading the slots does not wait for a GPU
            self.position = self.position.after(batch["slot"], self.trainer.global_rank, self.trainer.world_size)
        return batch

    def on_validation_epoch_start(self) -> None:
        self._validation = []
        self._averaged = self.averaged()
        self._averaged.__enter__()

    def validation_step(self, batch: Pairs, batch_index: int) -> None:
        """The averaged model's loss without drop-out, over the same timesteps and noises each time."""
        with self.autocast():
            losses_B, _ = self.model.losses(batch, self.generator(batch_index, validation=True), drop=0)
        self._validation.append(torch.stack([losses_B.sum(), losses_B.new_tensor(len(losses_B))]).double())

    def on_validation_epoch_end(self) -> None:
        self._averaged.__exit__(None, None, None)
        # A rank may have had no validation object at all, so the ranks share sums, not means.
        sums = torch.stack([torch.zeros(2, dtype=torch.double, device=self.device), *self._validation]).sum(0)
        total, pairs = self.trainer.strategy.reduce(sums, reduce_op="sum")
        if pairs:  # else no held-out object can be read
            self.log("val_loss", (total / pairs).float(), sync_dist=True)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The averaged weights in the U-Net, to look at, not to learn."""
        with self.ema.applied(), uncompiled(self.model.unet):
            yield

    def require_finite(self) -> None:
        """All ranks must call it, before they write what was learnt.

        Raises:
            UserError: a weight is no finite number any more, and so would be everything from here on.
        """
        learnt = [getattr(w, "ds_tensor", w).detach() for w in self.parameters() if w.requires_grad]
        finite = bool(torch.nn.utils.get_total_norm(learnt, foreach=True).isfinite())
        if not self.trainer.strategy.reduce_boolean_decision(finite, all=True):
            raise self.diverged()

    def diverged(self) -> UserError:
        """What to say when a loss or a weight is no finite number any more."""
        return UserError(
            f"{self.config.output}: by step {self.trainer.global_step} the loss or a weight is no finite number any "
            "more, and nothing was saved since; begin another output with a lower optimizer.lr or optimizer.clip_norm=1"
            ", from model.pretrained=<this output>/best if it is there"
        )

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.compute is torch.bfloat16)

    def generator(self, batch_index: int, validation: bool = False) -> torch.Generator:
        rank, ranks = self._validates() if validation else (self.global_rank, self.trainer.world_size)
        seed = batch_seed(self.config.seed, batch_index * ranks + rank, validation)
        return torch.Generator(self.device).manual_seed(seed)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        frozen = tuple(name for name, weight in self.named_parameters() if not weight.requires_grad)
        for name in frozen:
            checkpoint["state_dict"].pop(name, None)
        parts: list[Any] = [None] * self.trainer.world_size
        if self.trainer.world_size > 1:
            torch.distributed.all_gather_object(parts, self.position)
        checkpoint["position"] = (merged(parts) if parts[0] else self.position).as_dict()
        checkpoint["ema"] = self.ema.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.position = StreamState.from_dict(checkpoint["position"])
        self.ema.load(checkpoint["ema"])

    def configure_optimizers(self) -> Any:
        options = self.config.optimizer
        optimizer = adamw(self.model, options, fused=self.device.type == "cuda")
        steps = self.config.trainer.max_steps

        def factor(step: int) -> float:
            return lr_factor(step, options.warmup_steps, int(options.decay * steps), steps)

        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"},
        }

    def train_dataloader(self) -> Any:
        batches = training_batches(
            self.config.data,
            self.split.training,
            self.model.resolution,
            self.config.seed,
            self.position,
            self.trainer.global_rank,
            self.trainer.world_size,
        )
        self.position = batches.dataset.position  # type: ignore[attr-defined]  # it is a PairStream
        return batches

    def val_dataloader(self) -> Any:
        return validation_batches(
            self.config.data,
            self.split.validation,
            self.model.resolution,
            self.config.seed,
            *self._validates(),
        )

    def _validates(self) -> tuple[int, int]:
        """The rank that this one validates as, and of how many. Where every pass takes all devices, as under ZeRO-3,
        they must make equally many, so each of them validates everything."""
        return (0, 1) if is_sharded(self.model) else (self.trainer.global_rank, self.trainer.world_size)


def batch_seed(seed: int, number: int, validation: bool) -> int:
    """Of the timesteps and noises of the so-manieth batch, counted over all devices."""
    return int(np.random.SeedSequence([seed, number, int(validation)]).generate_state(1)[0])
