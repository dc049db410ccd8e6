"""The training and validation pairs of a run as a Lightning data module, with the state to resume from."""

from collections.abc import Mapping
from typing import Any

import lightning as L
import torch

from training.config import FinetuneConfig
from training.data.batches import training_batches, validation_batches
from training.data.split import Split
from training.data.stream_state import StreamState, merged
from training.distributed.strategy import is_sharded


class PairData(L.LightningDataModule):
    """Batches of view pairs for each rank of a run.

    Args:
        config: Options of the run.
        split: Objects to train on and objects to validate with.
        resolution: Side of the images in pixels.
    """

    def __init__(self, config: FinetuneConfig, split: Split, resolution: int) -> None:
        super().__init__()
        self.config, self.split, self.resolution = config, split, resolution
        self.stream_state = StreamState()

    def train_dataloader(self) -> Any:
        """Return the endless batches of this rank, from the stream state on."""
        trainer = self._trainer()
        batches = training_batches(
            self.config.data,
            self.split.training,
            self.resolution,
            self.config.seed,
            self.stream_state,
            trainer.global_rank,
            trainer.world_size,
        )
        self.stream_state = batches.dataset.stream_state  # type: ignore[attr-defined]  # a PairStream
        return batches

    def val_dataloader(self) -> Any:
        """Return one pass over the validation pairs of this rank."""
        rank, ranks = self.validation_rank()
        return validation_batches(
            self.config.data, self.split.validation, self.resolution, self.config.seed, rank, ranks
        )

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Advance the stream state; done before the transfer, so that reading the slots does not wait for a GPU."""
        trainer = self._trainer()
        if trainer.training:
            self.stream_state = self.stream_state.after(batch["slot"], trainer.global_rank, trainer.world_size)
        return batch

    def validation_rank(self) -> tuple[int, int]:
        """Return the rank and the number of ranks that validation objects are divided by.

        Under ZeRO-3 every forward pass needs all devices, which must then run equally many: each validates all objects.
        """
        trainer = self._trainer()
        return (0, 1) if is_sharded(trainer.lightning_module) else (trainer.global_rank, trainer.world_size)

    def gather_stream_state(self, ranks: int) -> StreamState:
        """Return the stream state of all ranks together. Every rank must call it."""
        if ranks == 1:
            return self.stream_state
        states: list[Any] = [None] * ranks
        torch.distributed.all_gather_object(states, self.stream_state)
        return merged(states)

    def load_stream_state(self, fields: Mapping[str, Any]) -> None:
        """Continue from the stream state in a checkpoint."""
        self.stream_state = StreamState.from_dict(fields)

    def _trainer(self) -> L.Trainer:
        assert self.trainer is not None, "the data module is used by Trainer.fit only"
        return self.trainer
