"""The state of a run on disk: written aside and renamed, pruned, found again.

`checkpoints/00000500/` holds everything that the step after 500 depends on: weights, optimiser, averaged weights,
schedule and the position in the data. Its `state` is one file, or a folder with the shards of DeepSpeed's ranks;
`saved.json` says which strategy wrote it. What lies under a name with `.part` was never finished.
"""

import json
import os
import shutil
import signal
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import yaml

from conf.options import UserError
from training.config import Strategy, TrainerConfig
from training.data.workers import WorkerLoader
from training.distributed.strategy import gathered
from training.model import checkpoint
from training.module import Finetuning

SIGNALS = (signal.SIGTERM, signal.SIGINT)
WAIT_FOR_DATA_S = 10.0  # for a batch, once the process was told to stop


class Stopped(Exception):
    """A signal (SIGTERM, SIGINT) ends the process. Its state is saved, unless Ctrl-C came twice or no data came."""


class BestModel(L.Callback):
    """Keeps the averaged weights of the lowest validation loss, as a checkpoint folder of its own."""

    def __init__(self, folder: Path, record: dict[str, Any]) -> None:
        self.folder, self.record = folder, record

    def on_validation_end(self, trainer: L.Trainer, module: Any) -> None:
        if "val_loss" not in trainer.callback_metrics:
            return  # no held-out object can be read
        loss = float(trainer.callback_metrics["val_loss"])
        kept = self.folder / "training.yaml"
        best = trainer.strategy.broadcast(
            not kept.exists() or loss < yaml.safe_load(kept.read_text())["validation"]["loss"]
        )
        if best:
            validation = {"step": trainer.global_step, "loss": loss}
            write_model(trainer, module, self.folder, self.record | {"validation": validation})


class FinalModel(L.Callback):
    """Writes the checkpoint folder that the run is for."""

    def __init__(self, folder: Path, record: dict[str, Any]) -> None:
        self.folder, self.record = folder, record

    def on_train_end(self, trainer: L.Trainer, module: Any) -> None:
        write_model(trainer, module, self.folder, self.record)


class Checkpoints(L.Callback):
    """Saves every so many steps, at the end, and, when any rank is `told` to stop or gets SIGTERM or SIGINT, after the
    step at hand."""

    def __init__(
        self,
        folder: Path,
        options: TrainerConfig,
        saved_by: dict[str, Any],
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.folder, self.every, self.keep = folder, options.checkpoint_every, options.keep
        self.saved_by, self.told = saved_by, should_stop
        self._told = False
        self._step = 0
        self._loaders: list[WorkerLoader] = []

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._step = trainer.global_step
        loaders = (trainer.train_dataloader, trainer.val_dataloaders)
        self._loaders = [loader for loader in loaders if isinstance(loader, WorkerLoader)]
        if threading.current_thread() is threading.main_thread():
            # Lightning's own handler talks to the other ranks from within the signal, whatever they are doing.
            for name in SIGNALS:
                signal.signal(name, self._on_signal)

    @contextmanager
    def signals_restored(self) -> Iterator[None]:
        """Handle signals as before once the training within has ended, in whatever way: no step follows that would
        look at them."""
        before = {name: signal.getsignal(name) for name in SIGNALS}
        try:
            yield
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.setitimer(signal.ITIMER_REAL, 0)
                for name, handler in before.items():
                    signal.signal(name, handler)

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, *_: Any) -> None:
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        stop = trainer.strategy.reduce_boolean_decision(self._told or self.told(), all=False)
        if self._step == trainer.max_steps:
            return  # the model comes first: from a checkpoint of the last step no step would lead to it
        if stop or self._step % self.every == 0:
            self._save(trainer, module)
        if stop:
            raise Stopped

    def on_train_end(self, trainer: L.Trainer, module: Any) -> None:
        self._save(trainer, module)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self._told = True
        signal.signal(signal.SIGINT, _stop_at_once)
        signal.signal(signal.SIGALRM, self._on_alarm)
        signal.setitimer(signal.ITIMER_REAL, 1, 1)

    def _on_alarm(self, number: int, _: FrameType | None) -> None:
        """Stop without a checkpoint where the step at hand waits for data that may never come."""
        if any(loader.seconds_waited() > WAIT_FOR_DATA_S for loader in self._loaders):
            raise Stopped

    def _save(self, trainer: L.Trainer, module: Finetuning) -> None:
        final = self.folder / f"{trainer.global_step:08d}"
        aside = final.with_name(final.name + ".part")
        if trainer.strategy.broadcast(final.exists()):
            return
        module.require_finite()
        if trainer.is_global_zero:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
        trainer.strategy.barrier()
        with checkpoint.discard_on_error(aside):
            trainer.save_checkpoint(aside / "state")
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            (aside / "saved.json").write_text(json.dumps(self.saved_by))
            _flush(aside)
            aside.rename(final)
            for old in finished(self.folder)[: -self.keep]:
                shutil.rmtree(old)
        trainer.strategy.barrier()


def _stop_at_once(number: int, _: FrameType | None) -> None:
    """A second Ctrl-C does not wait. A KeyboardInterrupt Lightning would turn into exit code 1, without a word."""
    raise Stopped


def finished(folder: Path) -> list[Path]:
    """The checkpoints that were written to their end, the newest last."""
    return sorted(path for path in folder.glob("*") if path.name.isdigit())


def latest(folder: Path, saved_by: dict[str, Any], max_steps: int) -> Path | None:
    """The state to continue from to `max_steps`, if there is one.

    Raises:
        UserError: it was written by a strategy that the one at hand cannot read, is damaged, or too far already.
    """
    if not (found := finished(folder)):
        return None
    if int(found[-1].name) >= max_steps:
        raise UserError(f"{found[-1]} is {max_steps} steps or more already; name a larger trainer.max_steps")
    try:
        before = json.loads((found[-1] / "saved.json").read_text())
        if (found[-1] / "state").is_file():
            zipfile.ZipFile(found[-1] / "state").close()  # what was cut off has no table of contents at its end
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{found[-1]} is damaged ({error}); delete it to continue from the one before it") from error
    whole = {Strategy.single.value, Strategy.ddp.value}
    if before != saved_by and not {before["strategy"], saved_by["strategy"]} <= whole:
        raise UserError(
            f"{found[-1]} was written under trainer={before['strategy']} by {before['devices']} devices, this is "
            f"trainer={saved_by['strategy']} with {saved_by['devices']}; continue as it was begun, or start another "
            "output"
        )
    return found[-1] / "state"


def write_model(trainer: L.Trainer, module: Finetuning, folder: Path, record: dict[str, Any]) -> None:
    """The checkpoint folder for samplers, with the averaged weights. All ranks must call it."""
    module.require_finite()
    with module.ema.applied(), gathered(module.model):
        if trainer.is_global_zero:
            checkpoint.save(module.model, folder)
            (folder / "training.yaml").write_text(yaml.safe_dump(record, sort_keys=False, allow_unicode=True))
    trainer.strategy.barrier()


def _flush(folder: Path) -> None:
    """To the disk, before the name says that it is there."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
