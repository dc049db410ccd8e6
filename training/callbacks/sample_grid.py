"""Pictures of a run: rows of input, truth and what the model makes of it."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from lightning.pytorch.loggers import WandbLogger
from PIL import Image
from torch import Tensor

from training.config import SampleConfig
from training.distributed.strategy import is_sharded
from training.model.ddim import novel_views
from training.model.zero123 import Batch
from training.module import Finetuning


class SampleGrid(L.Callback):
    """Writes rows of *input | truth | sample* from the averaged model, for the same pairs and noises."""

    def __init__(self, folder: Path, pairs: Batch, config: SampleConfig, every: int) -> None:
        self.folder, self.pairs, self.config, self.every = folder, pairs, config, every
        self._step = 0

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._step = trainer.global_step

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, *_: Any) -> None:
        if (step := trainer.global_step) == self._step:
            return  # a pass of several that make a step
        self._step = step
        if self.every and step % self.every == 0 and step != trainer.max_steps:
            self._draw(trainer, module)

    def on_train_end(self, trainer: L.Trainer, module: Any) -> None:
        self._draw(trainer, module)

    def _draw(self, trainer: L.Trainer, module: Finetuning) -> None:
        if not trainer.is_global_zero and not is_sharded(module.model):
            return
        pairs: Any = move_data_to_device(self.pairs, module.device)
        generator = torch.Generator(module.device).manual_seed(module.config.seed)
        model, how = module.model, self.config
        with module.averaged(), module.autocast():
            given = model.encode_condition(pairs)
            views = novel_views(model, *given, model.pose(pairs), how.steps, how.guidance, how.eta, generator)
            shown = [*model.pictures(pairs), views]
        if not trainer.is_global_zero:
            return
        picture = grid(torch.stack([part.float() for part in shown], dim=1))
        path = self.folder / f"{trainer.global_step:06d}.png"
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
