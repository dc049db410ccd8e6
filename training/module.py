"""The model as Lightning trains it."""

import math
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from training.config import FinetuneConfig
from training.data import Split, training_batches, validation_batches
from training.ema import Ema
from training.model.zero123 import Pairs, Zero123

CC_PROJECTION_LR = 10  # times the learning rate of the U-Net


class Finetuning(L.LightningModule):
    """Objective, optimiser and data of a run. Every step has a random generator of its own, seeded by (seed,
    rank, batch), so that a resumed run draws what an uninterrupted one would have drawn.
    """

    def __init__(self, model: Zero123, split: Split, config: FinetuneConfig) -> None:
        super().__init__()
        self.model, self.split, self.config = model, split, config
        self.ema = Ema(model.unet, config.optimizer.ema_decay)
        self._validation: list[Tensor] = []

    def training_step(self, batch: Pairs, batch_index: int) -> Tensor:
        loss = self.model.loss(batch, self.generator(batch_index))
        self.log("loss", loss)
        return loss

    def on_validation_epoch_start(self) -> None:
        self._validation = []

    def validation_step(self, batch: Pairs, batch_index: int) -> None:
        """The averaged model's loss without drop-out, over the same timesteps and noises each time."""
        with self.ema.applied(self.model) as model:
            loss = model.loss(batch, self.generator(batch_index, validation=True), drop=0)
        pairs = loss.new_tensor(len(batch["pose"]))
        self._validation.append(torch.stack([loss.detach() * pairs, pairs]).double())

    def on_validation_epoch_end(self) -> None:
        # A rank may have had no validation object at all, so the ranks share sums, not means.
        sums = torch.stack([torch.zeros(2, dtype=torch.double, device=self.device), *self._validation]).sum(0)
        total, pairs = self.trainer.strategy.reduce(sums, reduce_op="sum")
        self.log("val_loss", (total / pairs).float(), sync_dist=True)

    def generator(self, batch_index: int, validation: bool = False) -> torch.Generator:
        words = [self.config.seed, self.global_rank, batch_index, int(validation)]
        seed = int(np.random.SeedSequence(words).generate_state(1)[0])
        return torch.Generator(self.device).manual_seed(seed)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.ema.update(self.model.unet)

    def configure_optimizers(self) -> Any:
        options = self.config.optimizer
        optimizer = torch.optim.AdamW(
            [
                {"params": self.model.unet.parameters(), "lr": options.lr},
                {"params": self.model.cc_projection.parameters(), "lr": CC_PROJECTION_LR * options.lr},
            ],
            weight_decay=options.weight_decay,
        )
        steps = self.config.trainer.max_steps

        def factor(step: int) -> float:
            return lr_factor(step, options.warmup_steps, int(options.decay * steps), steps)

        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"},
        }

    def train_dataloader(self) -> Any:
        taken = self.trainer.global_step * self.config.trainer.accumulate
        return training_batches(
            self.config.data,
            self.split.training,
            self.model.resolution,
            self.config.seed,
            taken,
            self.trainer.global_rank,
            self.trainer.world_size,
        )

    def val_dataloader(self) -> Any:
        return validation_batches(
            self.config.data,
            self.split.validation,
            self.model.resolution,
            self.config.seed,
            self.trainer.global_rank,
            self.trainer.world_size,
        )


def lr_factor(step: int, warmup: int, decay: int, steps: int) -> float:
    """What the learning rate is multiplied by at a step counted from 0: up along a line, and down along a
    cosine over the last `decay` of all steps."""
    if step < warmup:
        return (step + 1) / warmup
    left = steps - step
    return 1.0 if left >= decay else 0.5 * (1 - math.cos(math.pi * left / decay))
