"""Training run of a few seconds: dotted objects, a model of a few thousand weights."""

import csv
from pathlib import Path

SMALL = [
    "model=tiny",
    "model.resolution=16",
    "model.patch=2",
    "model.unet.channels=[16,32]",
    "model.unet.attention=[false,true]",
    "model.unet.groups=8",
    "model.unet.heads=2",
    "model.encoder.image_size=16",
    "model.encoder.patch_size=8",
    "data.batch_size=4",
    "data.global_batch=4",
    "data.workers=0",
    "data.validation_fraction=0.2",
    "trainer.accelerator=cpu",
    "trainer.precision=float32",
    "trainer.threads=1",
    "trainer.log_every=2",
    "trainer.validate_every=5",
    "trainer.checkpoint_every=5",
    "sample.steps=2",
    "sample.rows=2",
]


def rows(output: Path) -> list[dict[str, str]]:
    with (output / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def losses(output: Path, column: str = "loss") -> list[float]:
    return [float(row[column]) for row in rows(output) if row[column]]
