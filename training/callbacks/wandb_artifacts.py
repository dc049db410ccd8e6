"""Models of a run as W&B artifacts: the files themselves, or where they lie in the run's mirror."""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import WandbLogger

from training.config import Artifacts


class ModelArtifacts(L.Callback):
    """Hands over `best` each time it is better, and `model` at the end; comes after the callback that writes them."""

    def __init__(self, output: Path, what: Artifacts, mirror: str | None) -> None:
        self.output, self.what, self.mirror = output, what, mirror
        self._logged = 0

    def on_validation_end(self, trainer: L.Trainer, module: Any) -> None:
        written = self.output / "best" / "training.yaml"
        if self.what is Artifacts.all and written.exists() and written.stat().st_mtime_ns != self._logged:
            self._logged = written.stat().st_mtime_ns
            self._log(trainer, "best")

    def on_train_end(self, trainer: L.Trainer, module: Any) -> None:
        if self.what is not Artifacts.none:
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
                if path.is_file():  # add_dir would speak of it
                    artifact.add_file(str(path), path.relative_to(self.output / name).as_posix())
        run.log_artifact(artifact, aliases=["latest", f"step-{trainer.global_step}"])
