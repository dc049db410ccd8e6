"""Configuration of the training data, the shards of a folder, and a key to compare pairs."""

from dataclasses import replace

import numpy as np

from training.config import DataConfig
from training.data.sources import read_sources
from training.data.split import Shard, split


def config(root, **options) -> DataConfig:
    return replace(DataConfig(path=str(root), batch_size=4, workers=0), **options)


def shards_of(root) -> tuple[Shard, ...]:
    return split(read_sources(str(root), "views"), 0.0).training


def key(pair) -> bytes:
    """Return a key that is equal for pairs with equal numbers."""
    return b"".join(np.asarray(pair[name]).tobytes() for name in ("condition", "target", "pose"))
