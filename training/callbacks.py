"""What a run shows of itself: a line of progress, metrics.csv and a grid of pictures."""

import csv
import sys
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import WandbLogger
from PIL import Image
from torch import Tensor

from training.config import SampleConfig, TrainerConfig
from training.data import ViewPairs
from training.model.ddim import novel_views
from training.model.zero123 import Pairs
from training.module import Finetuning

COLUMNS = ("step", "seconds", "loss", "val_loss", "lr", "pairs_per_second", "dropped")


class Metrics(L.Callback):
    """Appends to metrics.csv and prints a line with the time left, on the first rank."""

    def __init__(self, path: Path, config: TrainerConfig) -> None:
        self.path, self.config = path, config
        self.losses: list[Tensor] = []
        self.begun = self.before = 0.0
        self.first_step = self.step_before = 0

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.begun = self.before = time.monotonic()
        self.first_step = self.step_before = trainer.global_step
        if trainer.is_global_zero:
            _keep_rows(self.path, up_to=trainer.global_step)

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, *_: Any) -> None:
        self.losses.append(outputs["loss"].detach())
        step = trainer.global_step
        if step == self.step_before or (step % self.config.log_every and step != self.config.max_steps):
            return
        now = time.monotonic()
        loss = float(torch.stack(self.losses).mean()) * self.config.accumulate
        pace = (step - self.step_before) / (now - self.before)
        row = {
            "step": step,
            "seconds": round(now - self.begun, 2),
            "loss": f"{loss:.5f}",
            "lr": f"{trainer.optimizers[0].param_groups[0]['lr']:.3g}",
            "pairs_per_second": round(pace * self._pairs_per_step(trainer, module), 1),
            "dropped": _dropped(trainer),
        }
        self.losses, self.before, self.step_before = [], now, step
        if trainer.is_global_zero:
            _append(self.path, row)
            left = (self.config.max_steps - step) * (now - self.begun) / (step - self.first_step)
            of = f"{step}/{self.config.max_steps}"
            line = f"step {of}  loss {loss:.4f}  {pace:.1f} steps/s  {_clock(left)} left"
            _show(line, last=step == self.config.max_steps)

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if trainer.is_global_zero and not trainer.sanity_checking and "val_loss" in trainer.callback_metrics:
            loss = float(trainer.callback_metrics["val_loss"])
            _append(self.path, {"step": trainer.global_step, "val_loss": f"{loss:.5f}"})
            _show(f"step {trainer.global_step}: validation loss {loss:.4f}", last=True)

    def _pairs_per_step(self, trainer: L.Trainer, module: Finetuning) -> int:
        return module.config.data.batch_size * self.config.accumulate * trainer.world_size


class PictureGrid(L.Callback):
    """Writes rows of *input | truth | sample* from the averaged model, for the same pairs and noises."""

    def __init__(self, folder: Path, pairs: Pairs, config: SampleConfig, every: int) -> None:
        self.folder, self.pairs, self.config, self.every = folder, pairs, config, every

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, *_: Any) -> None:
        step = trainer.global_step
        if self.every and step % self.every == 0 and step != trainer.max_steps:
            self._draw(trainer, module)

    def on_train_end(self, trainer: L.Trainer, module: Any) -> None:
        self._draw(trainer, module)

    def _draw(self, trainer: L.Trainer, module: Finetuning) -> None:
        path = self.folder / f"{trainer.global_step:06d}.png"
        if not trainer.is_global_zero or path.exists():
            return
        condition, target, pose = (self.pairs[k].to(module.device) for k in ("condition", "target", "pose"))
        generator = torch.Generator(module.device).manual_seed(module.config.seed)
        with module.ema.applied(module.model) as model:
            views = novel_views(
                model, condition, pose, self.config.steps, self.config.guidance, self.config.eta, generator
            )
        picture = grid(torch.stack([condition, target, views.float()], dim=1))
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
        if isinstance(trainer.logger, WandbLogger):
            trainer.logger.log_image("input | truth | sample", [picture], step=trainer.global_step)


def grid(images_RCBHW: Tensor) -> Image.Image:
    """Rows × columns of pictures `[R, C, 3, H, W]` in [-1, 1], with a hair of grey between them."""
    rows, columns, _, height, width = images_RCBHW.shape
    sheet = Image.new("RGB", (columns * (width + 2) - 2, rows * (height + 2) - 2), (128, 128, 128))
    pixels = ((images_RCBHW.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 1, 3, 4, 2).cpu().numpy()
    for row in range(rows):
        for column in range(columns):
            sheet.paste(Image.fromarray(pixels[row, column]), (column * (width + 2), row * (height + 2)))
    return sheet


def _dropped(trainer: L.Trainer) -> int:
    dataset = trainer.train_dataloader.dataset  # type: ignore[union-attr]
    assert isinstance(dataset, ViewPairs)
    return int(dataset.dropped)


def _append(path: Path, row: dict[str, Any]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerow(row)


def _keep_rows(path: Path, up_to: int) -> None:
    """Forget what a run logged after the checkpoint that it now continues from."""
    if not path.exists():
        return
    with path.open(newline="") as file:
        kept = [row for row in csv.DictReader(file) if int(row["step"]) <= up_to]
    path.unlink()
    for row in kept:
        _append(path, row)


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
