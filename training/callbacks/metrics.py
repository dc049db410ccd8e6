"""What a run says of itself: a line of progress, metrics.csv, and the same figures for W&B."""

import csv
import math
import sys
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from training.config import QUARTERS, TrainerConfig
from training.data.pair_stream import PairStream
from training.model.cost import mfu
from training.module import Finetuning

SMOOTHING = 0.95  # of the running mean of the loss, per line
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


class Metrics(L.Callback):
    """Figures over all devices, every so many steps; `images_per_second` counts view pairs."""

    def __init__(self, path: Path, config: TrainerConfig, flops: int, peak: float | None) -> None:
        """`flops` of training on one image, `peak` FLOP/s of a device where it is known."""
        self.path, self.config, self.flops, self.peak = path, config, flops, peak
        self.begun = self.before = 0.0
        self.first_step = self.step_before = 0
        self.smooth: float | None = None
        self.sums: Tensor = torch.zeros(0)  # loss and count of each quarter, on the device

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.begun = self.before = time.monotonic()
        self.first_step = self.step_before = trainer.global_step
        self.sums = torch.zeros(2, QUARTERS, device=module.device)
        if trainer.is_global_zero:
            self.smooth = _keep_rows(self.path, up_to=trainer.global_step)

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, *_: Any) -> None:
        losses_B = outputs["losses"].float()
        quarter_B = outputs["timesteps"] * QUARTERS // len(module.model.alphas_cumprod)
        self.sums.index_add_(1, quarter_B, torch.stack([losses_B, torch.ones_like(losses_B)]))
        step = trainer.global_step
        if step == self.step_before or not self._due(step):
            return
        row = self._row(trainer, module)
        if trainer.is_global_zero:
            _append(self.path, row)
            if trainer.logger:
                trainer.logger.log_metrics({k: float(v) for k, v in row.items() if v != ""}, step)
            pace = (step - self.first_step) / (time.monotonic() - self.begun)
            of, left = f"{step}/{self.config.max_steps}", _clock((self.config.max_steps - step) / pace)
            line = f"step {of}  loss {row['loss']}  {row['images_per_second']} images/s  {left} left"
            _show(line, last=step == self.config.max_steps)

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if trainer.is_global_zero and "val_loss" in trainer.callback_metrics:
            loss = float(trainer.callback_metrics["val_loss"])
            _append(self.path, {"step": trainer.global_step, "val_loss": f"{loss:.5f}"})
            if trainer.logger:
                trainer.logger.log_metrics({"val_loss": loss}, trainer.global_step)
            _show(f"step {trainer.global_step}: validation loss {loss:.4f}", last=True)

    def _due(self, step: int) -> bool:
        return step % self.config.log_every == 0 or step == self.config.max_steps

    def _row(self, trainer: L.Trainer, module: Finetuning) -> dict[str, Any]:
        step = trainer.global_step
        losses, counts = trainer.strategy.reduce(self.sums, reduce_op="sum").tolist()
        loss = sum(losses) / sum(counts)
        if not math.isfinite(loss):
            raise module.diverged()
        self.smooth = loss if self.smooth is None else SMOOTHING * self.smooth + (1 - SMOOTHING) * loss
        now = time.monotonic()
        rates = [group["lr"] for group in trainer.optimizers[0].param_groups]
        norm = module.gradient_norm()
        pace = sum(counts) / (now - self.before)
        used = mfu(pace, self.flops, trainer.world_size, self.peak)
        row = {
            "step": step,
            "seconds": round(now - self.begun, 2),
            "loss": f"{loss:.5f}",
            "loss_smooth": f"{self.smooth:.5f}",
            **{f"loss_quarter_{i + 1}": f"{losses[i] / counts[i]:.5f}" if counts[i] else "" for i in range(QUARTERS)},
            "lr": f"{rates[0]:.3g}",
            "lr_projection": f"{rates[1]:.3g}",
            "grad_norm": "" if norm is None else f"{norm:.5g}",
            "images_per_second": round(pace, 1),
            "mfu": "" if used is None else f"{used:.4f}",
            "gpu_gigabytes": round(torch.cuda.max_memory_allocated() / 1e9, 2) if module.device.type == "cuda" else "",
            "dropped": int(trainer.strategy.reduce(_dropped(trainer, module.device), reduce_op="sum")),
        }
        self.sums.zero_()
        self.before, self.step_before = now, step
        return row


def _dropped(trainer: L.Trainer, device: torch.device) -> Tensor:
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


def _keep_rows(path: Path, up_to: int) -> float | None:
    """Forget what a run logged after the checkpoint that it now continues from, and a line that it did not come to the
    end of; the smooth loss it had by then."""
    if not path.exists():
        return None
    with path.open(newline="", errors="replace") as file:
        whole = [row for row in csv.DictReader(file) if None not in row and None not in row.values()]
    kept = [row for row in whole if row.get("step", "").isdecimal() and int(row["step"]) <= up_to]
    aside = path.with_name(path.name + ".part")
    aside.unlink(missing_ok=True)
    for row in kept:
        _append(aside, row)
    if kept:
        aside.replace(path)
    else:
        path.unlink()
    return next((float(row["loss_smooth"]) for row in reversed(kept) if row.get("loss_smooth")), None)


def _show(line: str, last: bool) -> None:
    """Over the line before on a terminal, below it elsewhere."""
    if sys.stdout.isatty():
        print(f"\r{line:<78}", end="\n" if last else "", flush=True)
    else:
        print(line, flush=True)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
