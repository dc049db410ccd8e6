"""Report the metrics of a run: a line of progress on stdout, `metrics.csv`, and W&B."""

import csv
import io
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import DeepSpeedStrategy
from torch import Tensor

from pipeline.storage import write_atomically
from training.config import QUARTERS, TrainerConfig
from training.data.pair_stream import PairStream
from training.model.hardware.cost import mfu
from training.module import Finetuning
from training.optimization.divergence import divergence_error

SMOOTHING = 0.95  # weight of the past in the running mean of the loss, per line
COLUMNS = (
    "step",
    "seconds",
    "loss",
    "loss_smooth",
    *(f"loss_quarter_{i + 1}" for i in range(QUARTERS)),
    "val_loss",
    "lr",
    "lr_projection",
    "grad_norm",
    "images_per_second",
    "mfu",
    "gpu_gigabytes",
    "dropped",
)


@dataclass(frozen=True)
class QuarterLosses:
    """Sums of the loss and numbers of pairs in each quarter of the timesteps, over all devices."""

    sums: list[float]
    counts: list[float]

    @property
    def pairs(self) -> float:
        """The number of pairs in all quarters."""
        return sum(self.counts)

    @property
    def mean(self) -> float:
        """The mean loss over all pairs."""
        return sum(self.sums) / self.pairs

    def columns(self) -> dict[str, str]:
        """Return the mean of each quarter by its column, empty where a quarter has no pair."""
        quarters = enumerate(zip(self.sums, self.counts, strict=True), start=1)
        return {f"loss_quarter_{i}": f"{total / count:.5f}" if count else "" for i, (total, count) in quarters}


class Metrics(L.Callback):
    """Write the metrics of all devices every `log_every` steps; `images_per_second` counts view pairs.

    Args:
        path: The run's `metrics.csv`.
        config: How often to write, and the steps of the run.
        flops: Floating point operations of training on one image.
        peak: Peak FLOP/s of a device, None where it is unknown.
    """

    def __init__(self, path: Path, config: TrainerConfig, flops: int, peak: float | None) -> None:
        self.path, self.config, self.flops, self.peak = path, config, flops, peak
        self._start_s = self._last_row_s = 0.0
        self._first_step = self._last_row_step = 0
        self._smooth_loss: float | None = None
        self._quarter_sums: Tensor = torch.zeros(0)  # [2, QUARTERS] on the device: losses and counts
        self._gradient_norm: Tensor | None = None

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Remove rows after the checkpoint that the run continues from, and start the clock."""
        self._start_s = self._last_row_s = time.monotonic()
        self._first_step = self._last_row_step = trainer.global_step
        self._quarter_sums = torch.zeros(2, QUARTERS, device=module.device)
        if trainer.is_global_zero:
            self._smooth_loss = _truncate_rows(self.path, last_step=trainer.global_step)

    def on_before_optimizer_step(
        self, trainer: L.Trainer, module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Compute the norm of the gradient before clipping. DeepSpeed keeps gradients elsewhere and reports its own."""
        if not isinstance(trainer.strategy, DeepSpeedStrategy):
            gradients = [weight.grad for weight in module.parameters() if weight.grad is not None]
            self._gradient_norm = torch.nn.utils.get_total_norm(gradients, foreach=True)

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, *_: Any) -> None:
        """Add the losses of a batch; write a row if one is due.

        Raises:
            UserError: The mean loss since the last row is not finite.
        """
        losses_B = outputs["losses"].float()
        quarter_B = outputs["timesteps"] * QUARTERS // len(module.model.alphas_cumprod)
        self._quarter_sums.index_add_(1, quarter_B, torch.stack([losses_B, torch.ones_like(losses_B)]))
        step = trainer.global_step
        if step == self._last_row_step or not self._due(step):
            return
        row = self._row(trainer, module)
        if trainer.is_global_zero:
            _append(self.path, row)
            if trainer.logger:
                trainer.logger.log_metrics({k: float(v) for k, v in row.items() if v != ""}, step)
            steps_per_second = (step - self._first_step) / (time.monotonic() - self._start_s)
            remaining = _duration((self.config.max_steps - step) / steps_per_second)
            progress = f"step {step}/{self.config.max_steps}"
            line = f"{progress}  loss {row['loss']}  {row['images_per_second']} images/s  {remaining} left"
            _print_progress(line, last=step == self.config.max_steps)

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Write a row with the validation loss."""
        if trainer.is_global_zero and "val_loss" in trainer.callback_metrics:
            loss = float(trainer.callback_metrics["val_loss"])
            _append(self.path, {"step": trainer.global_step, "val_loss": f"{loss:.5f}"})
            if trainer.logger:
                trainer.logger.log_metrics({"val_loss": loss}, trainer.global_step)
            _print_progress(f"step {trainer.global_step}: validation loss {loss:.4f}", last=True)

    def _due(self, step: int) -> bool:
        return step % self.config.log_every == 0 or step == self.config.max_steps

    def _row(self, trainer: L.Trainer, module: Finetuning) -> dict[str, Any]:
        """Return the row of the current step and start the next interval. Every rank must call it."""
        step = trainer.global_step
        losses = QuarterLosses(*trainer.strategy.reduce(self._quarter_sums, reduce_op="sum").tolist())
        loss = losses.mean
        if not math.isfinite(loss):
            raise divergence_error(trainer, module)
        past = self._smooth_loss
        self._smooth_loss = loss if past is None else SMOOTHING * past + (1 - SMOOTHING) * loss
        now = time.monotonic()
        unet_rate, projection_rate = (group["lr"] for group in trainer.optimizers[0].param_groups)
        norm = self._norm(trainer)
        images_per_second = losses.pairs / (now - self._last_row_s)
        utilisation = mfu(images_per_second, self.flops, trainer.world_size, self.peak)
        row = {
            "step": step,
            "seconds": round(now - self._start_s, 2),
            "loss": f"{loss:.5f}",
            "loss_smooth": f"{self._smooth_loss:.5f}",
            **losses.columns(),
            "lr": f"{unet_rate:.3g}",
            "lr_projection": f"{projection_rate:.3g}",
            "grad_norm": "" if norm is None else f"{norm:.5g}",
            "images_per_second": round(images_per_second, 1),
            "mfu": "" if utilisation is None else f"{utilisation:.4f}",
            "gpu_gigabytes": round(torch.cuda.max_memory_allocated() / 1e9, 2) if module.device.type == "cuda" else "",
            "dropped": int(trainer.strategy.reduce(_dropped(trainer, module.device), reduce_op="sum")),
        }
        self._quarter_sums.zero_()
        self._last_row_s, self._last_row_step = now, step
        return row

    def _norm(self, trainer: L.Trainer) -> float | None:
        """Return the gradient's norm in the last step, None where the strategy does not report it."""
        if isinstance(trainer.strategy, DeepSpeedStrategy):
            self._gradient_norm = trainer.strategy.deepspeed_engine.get_global_grad_norm()
        return None if self._gradient_norm is None else float(self._gradient_norm)


def _dropped(trainer: L.Trainer, device: torch.device) -> Tensor:
    """Return the number of objects that this rank could not read."""
    dataset = trainer.train_dataloader.dataset  # type: ignore[union-attr]
    assert isinstance(dataset, PairStream)
    return torch.tensor(dataset.dropped, device=device)


def _append(path: Path, row: dict[str, Any]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerow(row)


def _truncate_rows(path: Path, last_step: int) -> float | None:
    """Remove rows after `last_step` and an incomplete last row; return the smoothed loss at that step."""
    if not path.exists():
        return None
    with path.open(newline="", errors="replace") as file:
        complete = [row for row in csv.DictReader(file) if None not in row and None not in row.values()]
    kept = [row for row in complete if row.get("step", "").isdecimal() and int(row["step"]) <= last_step]
    if kept:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS)
        writer.writeheader()
        writer.writerows(kept)
        write_atomically(str(path), text.getvalue().encode())
    else:
        path.unlink()
    return next((float(row["loss_smooth"]) for row in reversed(kept) if row.get("loss_smooth")), None)


def _print_progress(line: str, last: bool) -> None:
    """Print over the previous line on a terminal, and below it elsewhere."""
    if sys.stdout.isatty():
        print(f"\r{line:<78}", end="\n" if last else "", flush=True)
    else:
        print(line, flush=True)


def _duration(seconds: float) -> str:
    """Return a duration as `h:mm:ss` or `m:ss`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
