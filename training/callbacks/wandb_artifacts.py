"""Log the models of a run as W&B artifacts: their files, or where the run's remote copy has them."""

import logging
import re
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import WandbLogger

from training.callbacks.remote_copy import remote_name
from training.config import Artifacts

log = logging.getLogger(__name__)

MAX_NAME = 100  # characters of the folder's name; W&B allows 128 in all


class ModelArtifacts(L.Callback):
    """Log `best` whenever it improves, and `model` at the end. Add it after the callback that writes them.

    With a remote copy, an artifact holds the model's `training.yaml` and, in its metadata, the URL of its files there.
    So does one of `best` offline, without a URL, because each improvement would be copied to the staging folder of W&B.
    An artifact that cannot be logged does not end the run.

    Args:
        output: Folder of the run.
        kinds: The models to log.
        mirror: URL of the remote copy.
    """

    def __init__(self, output: Path, kinds: Artifacts, mirror: str | None) -> None:
        self.output, self.kinds, self.mirror = output, kinds, mirror
        self._logged_mtime_ns = 0

    def on_validation_end(self, trainer: L.Trainer, module: Any) -> None:
        """Log `best` if it was written since."""
        record = self.output / "best" / "training.yaml"
        if self.kinds is Artifacts.all and record.exists() and record.stat().st_mtime_ns != self._logged_mtime_ns:
            self._logged_mtime_ns = record.stat().st_mtime_ns
            self._log(trainer, "best")

    def on_train_end(self, trainer: L.Trainer, module: Any) -> None:
        """Log `model`."""
        if self.kinds is not Artifacts.none:
            self._log(trainer, "model")

    def _log(self, trainer: L.Trainer, name: str) -> None:
        if isinstance(trainer.logger, WandbLogger):
            try:
                self._log_artifact(trainer.logger.experiment, name, trainer.global_step)
            except Exception as error:
                log.warning("%s: no W&B artifact: %s", self.output / name, error)

    def _log_artifact(self, run: Any, name: str, step: int) -> None:
        import wandb

        folder = self.output / name
        url = {"url": f"{self.mirror}/{remote_name(folder)}"} if self.mirror else {}
        artifact = wandb.Artifact(artifact_name(self.output, name), "model", metadata={"step": step, **url})
        is_final = name == "model"  # its files do not change, so that W&B can read them in place
        only_record = self.mirror or (run.offline and not is_final)
        paths = [folder / "training.yaml"] if only_record else sorted(p for p in folder.rglob("*") if p.is_file())
        for path in paths:  # file by file, because add_dir prints a progress line
            entry = path.relative_to(folder).as_posix()
            artifact.add_file(str(path), entry, skip_cache=True, policy="immutable" if is_final else "mutable")
        run.log_artifact(artifact, aliases=["latest", f"step-{step}"])


def artifact_name(output: Path, name: str) -> str:
    """Return the name of a model's artifact, of the characters that W&B allows."""
    return re.sub(r"[^a-zA-Z0-9_.-]", "-", output.name[:MAX_NAME]) + f"-{name}"
