"""The training step as a Lightning module: loss, optimiser, moving average of the weights, checkpoint contents."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.strategies import DeepSpeedStrategy
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from training.config import FinetuneConfig
from training.data.data_module import PairData
from training.distributed.topology import BatchPlan
from training.model.zero123 import Pairs, Zero123
from training.optimization.acceleration import uncompiled
from training.optimization.ema import Ema
from training.optimization.optimizer import adamw, lr_factor, match_memory_layout, set_learning_rates


class Finetuning(L.LightningModule):
    """Train a `Zero123` model on pairs of views.

    Every batch has its own random generator, seeded by the number of the batch among those of all devices. A resumed
    run therefore draws the same timesteps and noise as an uninterrupted one, and eight devices the same as one.

    Args:
        model: The model; its U-Net and `cc_projection` learn, and its image encoder where the configuration says so.
        data: The pairs, and how far the run is in them.
        config: Options of the run.
        batches: Pairs per pass and passes per optimiser step.
        compute: Type that forward and backward passes compute in; bfloat16 is autocast.
    """

    def __init__(
        self, model: Zero123, data: PairData, config: FinetuneConfig, batches: BatchPlan, compute: torch.dtype
    ) -> None:
        super().__init__()
        self.model, self.data, self.config, self.batches, self.compute = model, data, config, batches, compute
        averaged = [model.unet, *([model.image_encoder] if config.model.train_image_encoder else [])]
        self.ema = Ema(averaged, config.optimizer.ema_decay)
        self.strict_loading = False  # checkpoints do not hold the frozen weights
        self._validation_losses: list[Tensor] = []
        self._validation_weights = ExitStack()

    def on_train_start(self) -> None:
        """Start or continue the moving average; adapt a loaded optimiser to this run's schedule and memory layout."""
        self.ema.begin()
        for config in self.trainer.lr_scheduler_configs:
            assert isinstance(config.scheduler, LambdaLR)
            set_learning_rates(config.scheduler)
        if not isinstance(self.trainer.strategy, DeepSpeedStrategy):  # DeepSpeed keeps its moments in flat buffers
            for optimizer in self.trainer.optimizers:
                match_memory_layout(optimizer)

    def training_step(self, batch: Pairs, batch_index: int) -> dict[str, Tensor]:
        """Return the mean loss of a batch, and losses `[B]` and timesteps `[B]` of its pairs for the metrics."""
        with self.autocast():
            generator, timesteps = self.generator(batch_index), self.config.timesteps
            losses_B, timesteps_B = self.model.losses(batch, generator, timesteps=timesteps)
        return {"loss": losses_B.mean(), "losses": losses_B.detach(), "timesteps": timesteps_B}

    def optimizer_step(self, epoch: int, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        """Step the optimiser, then the moving average."""
        super().optimizer_step(epoch, batch_idx, *args, **kwargs)
        # Under DeepSpeed this hook runs after every pass, and DeepSpeed itself decides when a step is due.
        if (batch_idx + 1) % self.batches.accumulate == 0:
            self.ema.update()

    def configure_optimizers(self) -> Any:
        """Return AdamW with its schedule, which advances once per optimiser step."""
        options = self.config.optimizer
        optimizer = adamw(self.model, options, fused=self.device.type == "cuda")
        steps = self.config.trainer.max_steps

        def factor(step: int) -> float:
            return lr_factor(step, options.warmup_steps, int(options.decay * steps), steps)

        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"},
        }

    def on_validation_epoch_start(self) -> None:
        """Swap the averaged weights in until the end of the validation epoch."""
        self._validation_losses = []
        self._validation_weights.enter_context(self.averaged())

    def validation_step(self, batch: Pairs, batch_index: int) -> None:
        """Add the loss of the averaged model without conditioning dropout, with the same noise at each validation."""
        with self.autocast():
            losses_B, _ = self.model.losses(batch, self.generator(batch_index, validation=True), drop=0)
        self._validation_losses.append(torch.stack([losses_B.sum(), losses_B.new_tensor(len(losses_B))]).double())

    def on_validation_epoch_end(self) -> None:
        """Swap the trained weights back and log `val_loss`, the mean over the validation pairs of all ranks."""
        self._validation_weights.close()
        # Ranks exchange sums and not means, because a rank may have no validation object.
        zero = torch.zeros(2, dtype=torch.double, device=self.device)
        total, pairs = self.trainer.strategy.reduce(
            torch.stack([zero, *self._validation_losses]).sum(0), reduce_op="sum"
        )
        if pairs:  # no pairs: no validation object is readable
            self.log("val_loss", (total / pairs).float(), sync_dist=True)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Use the averaged weights, and the U-Net uncompiled, for inference."""
        with self.ema.applied(), uncompiled(self.model.unet):
            yield

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the autocast context of the run's `compute` type."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.compute is torch.bfloat16)

    def generator(self, batch_index: int, validation: bool = False) -> torch.Generator:
        """Return the generator for timesteps, noise and dropout of this rank's batch `batch_index`."""
        rank, ranks = self.data.validation_rank() if validation else (self.global_rank, self.trainer.world_size)
        seed = batch_seed(self.config.seed, batch_index * ranks + rank, validation)
        return torch.Generator(self.device).manual_seed(seed)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the moving average and the stream state; remove the frozen weights, which never change."""
        for name, weight in self.named_parameters():
            if not weight.requires_grad:
                checkpoint["state_dict"].pop(name, None)
        checkpoint["position"] = self.data.gather_stream_state(self.trainer.world_size).as_dict()
        checkpoint["ema"] = self.ema.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the moving average and the stream state, and count passes as this run does.

        Lightning counts passes; the number of passes per step may differ after a resume: with another
        `data.batch_size` or, under DDP, another number of devices.
        """
        self.data.load_stream_state(checkpoint["position"])
        self.ema.load(checkpoint["ema"])
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        for counts in (progress["total"], progress["current"]):
            counts.update(dict.fromkeys(counts, checkpoint["global_step"] * self.batches.accumulate))


def batch_seed(seed: int, number: int, validation: bool) -> int:
    """Return the seed for the timesteps and noise of global batch `number`, counted over all devices."""
    return int(np.random.SeedSequence([seed, number, int(validation)]).generate_state(1)[0])
