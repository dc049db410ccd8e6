"""Write images of a run: rows of input, ground truth and sampled view."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from lightning.pytorch.loggers import WandbLogger
from PIL import Image
from torch import Tensor

from rendering.picture_grid import picture_grid
from training.config import SampleConfig
from training.distributed.strategy import is_sharded
from training.model.ddim import novel_views
from training.model.zero123 import Batch
from training.module import Finetuning

GAP_PX = 2
GAP_COLOUR = (128, 128, 128)


class SampleGrid(L.Callback):
    """Write rows of *input | truth | sample* from the averaged model, for the same pairs and noise each time.

    Args:
        folder: The run's `samples` folder.
        pairs: Pairs of views, one per row.
        config: Options of the sampler.
        every: Steps between images; 0 writes one at the end only.
    """

    def __init__(self, folder: Path, pairs: Batch, config: SampleConfig, every: int) -> None:
        self.folder, self.pairs, self.config, self.every = folder, pairs, config, every
        self._step = 0

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Remember the first step."""
        self._step = trainer.global_step

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, *_: Any) -> None:
        """Write an image if one is due."""
        if (step := trainer.global_step) == self._step:
            return  # one of several passes of a step
        self._step = step
        if self.every and step % self.every == 0 and step != trainer.max_steps:
            self._write(trainer, module)

    def on_train_end(self, trainer: L.Trainer, module: Any) -> None:
        """Write the last image."""
        self._write(trainer, module)

    def _write(self, trainer: L.Trainer, module: Finetuning) -> None:
        if not trainer.is_global_zero and not is_sharded(module.model):
            return
        pairs: Any = move_data_to_device(self.pairs, module.device)
        generator = torch.Generator(module.device).manual_seed(module.config.seed)
        model, options = module.model, self.config
        with torch.no_grad(), module.averaged(), module.autocast():
            given = model.encode_condition(pairs)
            views = novel_views(
                model, *given, model.pose(pairs), options.steps, options.guidance, options.eta, generator
            )
            columns = [*model.pictures(pairs), views]
        if not trainer.is_global_zero:
            return
        image = grid(torch.stack([column.float() for column in columns], dim=1))
        path = self.folder / f"{trainer.global_step:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
        if isinstance(trainer.logger, WandbLogger):
            trainer.logger.log_image("input | truth | sample", [image], step=trainer.global_step)


def grid(images_RCBHW: Tensor) -> Image.Image:
    """Return one image of rows × columns of images `[R, C, 3, H, W]` in [-1, 1], with grey gaps between them."""
    pixels = ((images_RCBHW.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 1, 3, 4, 2).cpu().numpy()
    sheet = picture_grid([[Image.fromarray(image) for image in row] for row in pixels], (GAP_PX, GAP_PX), GAP_COLOUR)
    return sheet.crop((0, 0, sheet.width - GAP_PX, sheet.height - GAP_PX))
