"""Log the models of a run as W&B artifacts: their files, or references to the run's remote copy."""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import WandbLogger

from training.config import Artifacts


class ModelArtifacts(L.Callback):
    """Log `best` whenever it improves, and `model` at the end. Add it after the callback that writes them.

    Args:
        output: Folder of the run.
        kinds: The models to log.
        mirror: URL of the remote copy, which `s3://` artifacts refer to.
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
        if not isinstance(trainer.logger, WandbLogger):
            return
        import wandb

        run = trainer.logger.experiment
        artifact = wandb.Artifact(f"{self.output.name}-{name}", "model", metadata={"step": trainer.global_step})
        if self.mirror and self.mirror.startswith("s3://"):
            artifact.add_reference(f"{self.mirror}/{name}", checksum=False)
        else:
            for path in sorted((self.output / name).rglob("*")):
                if path.is_file():  # file by file, because add_dir prints a progress line
                    artifact.add_file(str(path), path.relative_to(self.output / name).as_posix())
        run.log_artifact(artifact, aliases=["latest", f"step-{trainer.global_step}"])
