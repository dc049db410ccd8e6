"""Save the state of a run, prune old states, and find the one to resume from.

`checkpoints/00000500/` holds everything that the steps after 500 depend on: weights, optimiser, moving average,
schedule and stream state. Its `state` is one file, or under DeepSpeed a folder with one file per rank; `saved.json`
names the strategy that wrote it. A folder whose name ends in `.part` is incomplete.
"""

import json
import logging
import os
import secrets
import shutil
import signal
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import yaml
from lightning.pytorch.strategies import DeepSpeedStrategy

from conf.options import UserError
from training.config import Strategy, TrainerConfig
from training.data.workers import WorkerLoader
from training.distributed.strategy import gathered
from training.model.checkpoints import checkpoint, checkpoint_folder
from training.module import Finetuning
from training.optimization.divergence import require_finite_weights

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)
SHARING_WAIT_S = 20.0  # until a file of another machine must be visible, which network file systems may show late
MAX_DATA_WAIT_S = 10.0  # for the batch of the current step, after a stop was requested


class Stopped(Exception):
    """A signal (SIGTERM, SIGINT) or a request stopped the run.

    The state is saved, unless SIGINT came twice or no data arrived.
    """


class BestModel(L.Callback):
    """Keep the averaged weights of the lowest validation loss as a checkpoint folder.

    Args:
        folder: Checkpoint folder to write.
        record: Contents of its `training.yaml`.
    """

    def __init__(self, folder: Path, record: dict[str, Any]) -> None:
        self.folder, self.record = folder, record

    def on_validation_end(self, trainer: L.Trainer, module: Any) -> None:
        """Write the model if its validation loss is the lowest so far."""
        if "val_loss" not in trainer.callback_metrics:
            return  # no validation object is readable
        loss = float(trainer.callback_metrics["val_loss"])
        record = self.folder / "training.yaml"
        is_best = trainer.strategy.broadcast(
            not record.exists() or loss < yaml.safe_load(record.read_text())["validation"]["loss"]
        )
        if is_best:
            log.info("step %d: lowest validation loss so far, %.5f", trainer.global_step, loss)
            validation = {"step": trainer.global_step, "loss": loss}
            write_model(trainer, module, self.folder, self.record | {"validation": validation})


class FinalModel(L.Callback):
    """Write the averaged weights as a checkpoint folder at the end of the run.

    Args:
        folder: Checkpoint folder to write.
        record: Contents of its `training.yaml`.
    """

    def __init__(self, folder: Path, record: dict[str, Any]) -> None:
        self.folder, self.record = folder, record

    def on_train_end(self, trainer: L.Trainer, module: Any) -> None:
        """Write the model."""
        write_model(trainer, module, self.folder, self.record)


class Checkpoints(L.Callback):
    """Save the state every `checkpoint_every` steps, at the end, and after the current step of a run that is stopped.

    A run stops when `should_stop` returns true or SIGTERM or SIGINT arrives on any rank.

    Args:
        folder: The run's `checkpoints` folder.
        options: How often to save and how many states to keep.
        saved_by: Strategy and number of devices, written to `saved.json`.
        should_stop: Called after each step.
    """

    def __init__(
        self,
        folder: Path,
        options: TrainerConfig,
        saved_by: dict[str, Any],
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.folder, self.every, self.keep = folder, options.checkpoint_every, options.keep
        self.saved_by, self.should_stop = saved_by, should_stop
        self._signalled = False
        self._step = 0
        self._loaders: list[WorkerLoader] = []

    def setup(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        """Check that the machines of the run see the same checkpoints.

        Raises:
            UserError: Another rank lacks the checkpoint of rank zero, or could not add its part to one.
        """
        newest, strategy = [path.name for path in finished(self.folder)][-1:], trainer.strategy
        if not strategy.reduce_boolean_decision(newest == strategy.broadcast(newest), all=True):
            raise UserError(f"{self.folder}: machines see different checkpoints; use an output that all of them share")
        if isinstance(strategy, DeepSpeedStrategy) and not self._is_shared(trainer):
            raise UserError(
                f"{self.folder}: not one folder on all machines, and under ZeRO each writes a part of a checkpoint; "
                "use an output that all of them share, or trainer=ddp"
            )

    def _is_shared(self, trainer: L.Trainer) -> bool:
        """Return whether all ranks see a file that rank zero writes. Every rank must call it."""
        probe = self.folder / trainer.strategy.broadcast(f".shared-{secrets.token_hex(4)}")
        if trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            probe.touch()
        trainer.strategy.barrier()
        deadline = time.monotonic() + SHARING_WAIT_S
        while not probe.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        shared = trainer.strategy.reduce_boolean_decision(probe.exists(), all=True)
        if trainer.is_global_zero:
            probe.unlink()
        return shared

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Install the signal handlers."""
        self._step = trainer.global_step
        loaders = (trainer.train_dataloader, trainer.val_dataloaders)
        self._loaders = [loader for loader in loaders if isinstance(loader, WorkerLoader)]
        if threading.current_thread() is threading.main_thread():
            # Lightning's handler communicates with the other ranks inside the handler, at any point of a step.
            for name in SIGNALS:
                signal.signal(name, self._on_signal)

    @contextmanager
    def signals_restored(self) -> Iterator[None]:
        """Restore the previous signal handlers on exit, since no later step checks for signals."""
        before = {name: signal.getsignal(name) for name in SIGNALS}
        try:
            yield
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.setitimer(signal.ITIMER_REAL, 0)
                for name, handler in before.items():
                    signal.signal(name, handler)

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, *_: Any) -> None:
        """Save the state if it is due; stop if requested.

        Raises:
            Stopped: A signal or `should_stop` ended the run.
        """
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        stop = trainer.strategy.reduce_boolean_decision(self._signalled or self.should_stop(), all=False)
        if self._step == trainer.max_steps:
            return  # `on_train_end` saves after the final model: a resume from the last step could not write the model
        if stop or self._step % self.every == 0:
            self._save(trainer, module)
        if stop:
            raise Stopped

    def on_train_end(self, trainer: L.Trainer, module: Any) -> None:
        """Save the state."""
        self._save(trainer, module)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self._signalled = True
        signal.signal(signal.SIGINT, _stop_at_once)
        signal.signal(signal.SIGALRM, self._on_alarm)
        signal.setitimer(signal.ITIMER_REAL, 1, 1)

    def _on_alarm(self, number: int, _: FrameType | None) -> None:
        """Stop without saving where the current step waits for data that may never arrive."""
        if any(loader.seconds_waited() > MAX_DATA_WAIT_S for loader in self._loaders):
            raise Stopped

    def _save(self, trainer: L.Trainer, module: Finetuning) -> None:
        final = self.folder / f"{trainer.global_step:08d}"
        partial = final.with_name(final.name + ".part")
        if trainer.strategy.broadcast(final.exists()):
            return
        require_finite_weights(trainer, module)
        if trainer.is_global_zero:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        trainer.strategy.barrier()
        with checkpoint_folder.discard_on_error(partial):
            trainer.save_checkpoint(partial / "state")
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            (partial / "saved.json").write_text(json.dumps(self.saved_by))
            _sync_to_disk(partial)
            partial.rename(final)
            for old in finished(self.folder)[: -self.keep]:
                shutil.rmtree(old)
            log.info("saved %s", final)
        trainer.strategy.barrier()


def _stop_at_once(number: int, _: FrameType | None) -> None:
    """Stop at the second SIGINT without saving. Lightning would end a KeyboardInterrupt with exit code 1, silently."""
    raise Stopped


def finished(folder: Path) -> list[Path]:
    """Return the complete checkpoints in a folder, oldest first."""
    return sorted(path for path in folder.glob("*") if path.name.isdigit())


def latest(folder: Path, saved_by: dict[str, Any], max_steps: int) -> Path | None:
    """Return the newest state in a folder, or None if there is none.

    Args:
        folder: The run's `checkpoints` folder.
        saved_by: Strategy and number of devices of this process.
        max_steps: Steps of the run.

    Raises:
        UserError: The state is damaged, is at `max_steps` already, or was written by an incompatible strategy.
    """
    checkpoints = finished(folder)
    if not checkpoints:
        return None
    newest = checkpoints[-1]
    if int(newest.name) >= max_steps:
        raise UserError(f"trainer.max_steps={max_steps}: {newest} has that many steps already; use a larger number")
    try:
        before = json.loads((newest / "saved.json").read_text())
        if (newest / "state").is_file():
            zipfile.ZipFile(newest / "state").close()  # a truncated file lacks the directory at its end
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{newest} is damaged ({error}); delete it to continue from the one before it") from error
    unsharded = {Strategy.single.value, Strategy.ddp.value}
    if before != saved_by and not {before["strategy"], saved_by["strategy"]} <= unsharded:
        raise UserError(
            f"trainer={saved_by['strategy']} on {saved_by['devices']} devices cannot continue {newest}, which was "
            f"written under trainer={before['strategy']} on {before['devices']} devices; use those, or another output"
        )
    return newest / "state"


def write_model(trainer: L.Trainer, module: Finetuning, folder: Path, record: dict[str, Any]) -> None:
    """Write the averaged weights as a checkpoint folder. Every rank must call it.

    Raises:
        UserError: A weight is not finite.
    """
    require_finite_weights(trainer, module)
    with module.ema.applied(), gathered(module.model):
        if trainer.is_global_zero:
            checkpoint.save(module.model, folder)
            (folder / "training.yaml").write_text(yaml.safe_dump(record, sort_keys=False, allow_unicode=True))
    trainer.strategy.barrier()


def _sync_to_disk(folder: Path) -> None:
    """Flush all files of a folder, so that its rename does not reach the disk before its contents."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
