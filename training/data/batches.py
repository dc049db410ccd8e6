"""Batch the pairs of a stream for training, validation and the sample grid."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import get_worker_info

from conf.options import UserError
from training.config import DataConfig
from training.data.pair_stream import PairStream
from training.data.split import Shard
from training.data.stream_state import StreamState
from training.data.workers import WorkerLoader, shared_zeros


def training_batches(
    config: DataConfig,
    shards: Sequence[Shard],
    resolution: int,
    seed: int,
    stream_state: StreamState = StreamState(),
    rank: int = 0,
    ranks: int = 1,
) -> WorkerLoader:
    """Return the endless batches of a rank, from `stream_state` on.

    `loader.dataset.stream_state` is that state for the present number of readers. With the same batch size and number
    of readers (ranks · workers), a run has the same batches on any number of ranks.

    Raises:
        UserError: There are fewer objects than ranks.
    """
    objects = sum(len(shard.uids) for shard in shards)
    if objects < ranks:
        raise UserError(f"data.path={config.path}: {objects} training objects for {ranks} devices; use fewer devices")
    workers = min(config.workers, objects // ranks)  # every worker needs an object
    state = stream_state.among(max(1, workers) * ranks, ranks)
    pairs = PairStream(
        config, shards, resolution, seed, config.pairs_per_object, config.weights, None, state, rank, ranks
    )
    return WorkerLoader(pairs, config.batch_size, workers, collate_fn=collate)


def validation_batches(
    config: DataConfig, shards: Sequence[Shard], resolution: int, seed: int, rank: int = 0, ranks: int = 1
) -> WorkerLoader:
    """Return one pass over a rank's validation pairs, which are the same in every pass."""
    config = replace(config, reflect=False)
    pairs = PairStream(config, shards, resolution, seed, config.validation_pairs, epochs=1, rank=rank, ranks=ranks)
    workers = 0 if len(shards) < 4 else config.workers
    return WorkerLoader(pairs, config.batch_size, workers, collate_fn=collate)


def fixed_pairs(config: DataConfig, shards: Sequence[Shard], resolution: int, seed: int, count: int) -> Any:
    """Return a batch of the first `count` pairs of the shards, of different objects as long as there are enough.

    Raises:
        NothingReadable: No object of the shards is readable.
    """
    config = replace(config, max_bad_rate=1.0, reflect=False)
    pairs = PairStream(config, shards, resolution, seed, pairs_per_object=1)
    return collate(list(itertools.islice(pairs, count)))


def collate(pairs: list[Any]) -> Any:
    """Return a batch of pairs, or the first `UserError` among them.

    Returns:
        uint8 images `[B, 3, R, R]`, or float16 moments `[B, 2C, h, w]` and embeddings `[B, D]`; poses `[B, 4]`; slots
        `[B]`.
    """
    for pair in pairs:
        if isinstance(pair, UserError):
            return pair
    batch = {name: _stack([pair[name] for pair in pairs]) for name in pairs[0]}
    # A permuted view costs nothing here; the device makes the copy.
    return {name: part.permute(0, 3, 1, 2) if part.dtype is torch.uint8 else part for name, part in batch.items()}


def _stack(arrays: list[NDArray[Any]]) -> Tensor:
    """Stack arrays of one shape to a tensor; in a loader worker, in memory that the training process can map."""
    if get_worker_info() is None:
        return torch.from_numpy(np.stack(arrays))
    dtype = torch.from_numpy(np.empty(0, arrays[0].dtype)).dtype
    stacked = shared_zeros([len(arrays), *arrays[0].shape], dtype)
    np.stack(arrays, out=stacked.numpy())
    return stacked
