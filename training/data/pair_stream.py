"""Shards to batches of pairs: two views of an object, condition and target, and the pose between them.

Everything is a pure function of (seed, epoch, uid), so a stream can be replayed, continued and divided among ranks
and loader workers without talk between them.
"""

import hashlib
import itertools
import logging
import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from tarfile import TarError
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from conf.options import UserError
from pipeline.shards import Sample, read_samples
from training.config import DataConfig, DataKind
from training.data.split import Shard, share
from training.data.stream_state import StreamState
from training.data.view_pairs import Fields, Views, choose_pairs, open_latents, open_views
from training.data.workers import WorkerLoader, shared_zeros
from training.model.picture import decode

log = logging.getLogger(__name__)

# What PIL, numpy and tarfile raise over damaged contents.
UNREADABLE = (OSError, ValueError, KeyError, EOFError, SyntaxError, TarError, Image.DecompressionBombError)
UNSEEN, GOOD, BAD = range(3)  # what a rank has found an object to be


class NothingReadable(UserError):
    """No object can be read of those that a stream was given."""


class PairStream(IterableDataset[Fields | UserError]):
    """The pairs of one rank: endless with `epochs=None`, else so many passes.

    A rank has as many readers as loader workers, or is its only one. A shard's objects are held in memory while
    their pairs are dealt in random order; the order of the shards changes with the epoch. What cannot be read is
    dropped, counted in `dropped` and named in the log, once. A worker's UserError comes as its last item, since torch
    would make a traceback of it.
    """

    def __init__(
        self,
        config: DataConfig,
        shards: Sequence[Shard],
        resolution: int,
        seed: int,
        pairs_per_object: int,
        epochs: int | None = None,
        position: StreamState = StreamState(),
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        """The stream goes on at `position`, which is that of as many readers as there will be, or of none."""
        super().__init__()
        self.config, self.shards, self.resolution, self.seed = config, tuple(shards), resolution, seed
        self.pairs_per_object, self.epochs = pairs_per_object, epochs
        self.position, self.rank, self.ranks = position, rank, ranks
        sizes = [len(shard.uids) for shard in self.shards]
        self._first = dict(zip((s.name for s in self.shards), itertools.accumulate(sizes, initial=0), strict=False))
        self._found = shared_zeros([sum(sizes)], torch.uint8)  # one byte per object
        self._shape: tuple[tuple[int, ...], ...] = ()  # of the latents of a view
        self._cache: OrderedDict[tuple[str, str], NDArray[np.uint8]] = OrderedDict()
        self._cache_size = config.cache_mb * 2**20 // (3 * resolution**2)

    @property
    def dropped(self) -> int:
        """Objects that this rank could not read, in whole or in part."""
        return int((self._found == BAD).sum())

    def __iter__(self) -> Iterator[Fields | UserError]:
        worker = get_worker_info()
        workers, index = (worker.num_workers, worker.id) if worker else (1, 0)
        # A loader asks its workers in turn, from the first: that one continues with the batch that is due.
        role = (index + self.position.batches // self.ranks) % workers
        try:
            yield from self._read_as(role * self.ranks + self.rank, workers * self.ranks)
        except UserError as error:
            if worker is None:
                raise
            yield error

    def _read_as(self, reader: int, readers: int) -> Iterator[Fields]:
        used, slot = self.position.used[reader] if self.position.used else 0, 0
        for epoch in itertools.count() if self.epochs is None else range(self.epochs):
            dealt = False
            order = self._random(epoch).permutation(len(self.shards))
            # Each epoch another share: a reader of nothing but damaged objects would wait for ever.
            for shard in share([self.shards[i] for i in order], (reader + epoch) % readers, readers):
                after = slot + len(shard.uids) * self.pairs_per_object
                if after > used:
                    for pair in self._deal(shard, epoch, slot, used):
                        dealt = True
                        yield pair
                slot = after
            if self.epochs is None and not dealt and self.dropped == len(self._found):
                raise NothingReadable(f"no object of {self.config.path} can be read; {_way_out(self.config)}")

    def _deal(self, shard: Shard, epoch: int, slot: int, used: int) -> Iterator[Fields]:
        """The pairs of a shard whose first has the number `slot`, but for those below `used`."""
        samples, opened = self._read(shard), dict[str, tuple[Views, list[tuple[int, int]]]]()
        found, whole = self._found.numpy(), next(s for s in self.shards if s.name == shard.name)
        numbers = {uid: self._first[shard.name] + i for i, uid in enumerate(whole.uids)}
        deck = [(uid, turn) for uid in shard.uids for turn in range(self.pairs_per_object)]
        # By the shard's number, so that views and latents are dealt in the same order.
        order = self._random(epoch, shard.name.rpartition("-")[2]).permutation(len(deck))
        for place in range(max(0, used - slot), len(deck)):
            uid, turn = deck[order[place]]
            try:
                if uid not in opened:
                    opened[uid] = self._open(uid, samples[uid], epoch)
                    found[numbers[uid]] = max(found[numbers[uid]], GOOD)
                views, pairs = opened[uid]
                pair = views.pair(*pairs[turn])
            except UNREADABLE as error:
                if found[numbers[uid]] != BAD:
                    found[numbers[uid]] = BAD
                    self._drop(uid, error)
                continue
            yield {**pair, "slot": np.array(slot + place)}

    def _read(self, shard: Shard) -> dict[str, Sample]:
        wanted, samples = set(shard.uids), {}
        try:
            for uid, sample in read_samples(self.config.path, shard.name):
                if uid in wanted:
                    samples[uid] = sample
        except UNREADABLE as error:
            log.warning("%s.tar is damaged, the rest of it is lost: %s", shard.name, error)
        return samples

    def _open(self, uid: str, sample: Sample, epoch: int) -> tuple[Views, list[tuple[int, int]]]:
        if self.config.kind is DataKind.latents:
            views = open_latents(sample)
            shape = tuple(part.shape for part in views.condition(0).values())
            self._shape = self._shape or shape
            if shape != self._shape:
                raise ValueError(f"latents of shape {shape}, those before of {self._shape}")
        else:
            views = open_views(sample, lambda name: self._decode(uid, name, sample[name]))
        return views, choose_pairs(self._random(epoch, uid), len(views.places), self.pairs_per_object)

    def _random(self, epoch: int, *words: str) -> np.random.Generator:
        """A generator that follows from the seed, the epoch and the words alone."""
        digest = hashlib.sha256(" ".join([str(self.seed), str(epoch), *words]).encode()).digest()
        return np.random.default_rng(np.frombuffer(digest, dtype="<u4"))

    def _decode(self, uid: str, name: str, contents: bytes) -> NDArray[np.uint8]:
        """Pixels of a view; those that were used last are kept."""
        pixels = self._cache.pop((uid, name), None)
        if pixels is None:
            pixels = decode(contents, self.resolution, self.config.background)
        self._cache[uid, name] = pixels
        if len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)
        return pixels

    def _drop(self, uid: str, error: Exception) -> None:
        missing = isinstance(error, KeyError)
        log.warning("dropped %s: %s", uid, f"{error} is missing from its shard" if missing else repr(error))
        # Of the objects that this rank has met, which are at least its share of all.
        objects, met = len(self._found), int((self._found != UNSEEN).sum())
        allowed, use = self.config.max_bad_rate * max(met, objects / self.ranks), "to train on"
        if self.epochs is not None:  # validation, of objects so few that a rate is rounded up
            allowed, use = math.ceil(allowed), "to validate with"
        if self.dropped > allowed:
            raise UserError(
                f"{self.dropped} of {objects} objects {use} in {self.config.path} cannot be read, more than "
                f"data.max_bad_rate={self.config.max_bad_rate:g} allows; {_way_out(self.config)}"
            )


def training_batches(
    config: DataConfig,
    shards: Sequence[Shard],
    resolution: int,
    seed: int,
    position: StreamState = StreamState(),
    rank: int = 0,
    ranks: int = 1,
) -> WorkerLoader:
    """The endless batches of a rank in a run that has come to `position`.

    `loader.dataset.position` is that position as it is for the readers that there are now; `after` continues it.
    With the same batch size and number of readers, ranks · workers, the batches of a run are the same on any number
    of ranks.
    """
    objects = sum(len(shard.uids) for shard in shards)
    if objects < ranks:
        raise UserError(f"{objects} training objects cannot feed {ranks} devices; render more, or use fewer")
    workers = min(config.workers, objects // ranks)  # one without an object would have nothing to give
    here = position.among(max(1, workers) * ranks, ranks)
    pairs = PairStream(config, shards, resolution, seed, config.pairs_per_object, None, here, rank, ranks)
    return WorkerLoader(pairs, config.batch_size, workers, collate_fn=collate)


def validation_batches(
    config: DataConfig, shards: Sequence[Shard], resolution: int, seed: int, rank: int = 0, ranks: int = 1
) -> WorkerLoader:
    """One pass over the pairs of the rank's validation objects, the same ones each time."""
    pairs = PairStream(config, shards, resolution, seed, config.validation_pairs, epochs=1, rank=rank, ranks=ranks)
    workers = 0 if len(shards) < 4 else config.workers
    return WorkerLoader(pairs, config.batch_size, workers, collate_fn=collate)


def fixed_pairs(config: DataConfig, shards: Sequence[Shard], resolution: int, seed: int, count: int) -> Any:
    """Return the first pairs of one pass over the shards, of different objects as far as there are enough.

    Raises:
        NothingReadable: no object of the shards can be read.
    """
    pairs = PairStream(replace(config, max_bad_rate=1.0), shards, resolution, seed, pairs_per_object=1)
    return collate(list(itertools.islice(pairs, count)))


def collate(pairs: list[Any]) -> Any:
    """A batch: pictures as bytes `[B, 3, R, R]`, or moments `[B, 2C, h, w]` and embeddings `[B, D]` in half precision,
    poses `[B, 4]` and slots `[B]`. A UserError among the pairs takes the place of their batch.
    """
    for pair in pairs:
        if isinstance(pair, UserError):
            return pair
    batch = {name: _stack([pair[name] for pair in pairs]) for name in pairs[0]}
    # Pictures keep the order of their bytes; the device does what arithmetic is left.
    return {name: part.permute(0, 3, 1, 2) if part.dtype is torch.uint8 else part for name, part in batch.items()}


def _stack(arrays: list[NDArray[Any]]) -> Tensor:
    """Stack arrays of one shape to a tensor, in a loader worker in memory that the training process maps."""
    if get_worker_info() is None:
        return torch.from_numpy(np.stack(arrays))
    dtype = torch.from_numpy(np.empty(0, arrays[0].dtype)).dtype
    stacked = shared_zeros([len(arrays), *arrays[0].shape], dtype)
    np.stack(arrays, out=stacked.numpy())
    return stacked


def _way_out(config: DataConfig) -> str:
    again = "encode" if config.kind is DataKind.latents else "render"
    return f"delete the shards that are damaged (the log and pipeline.verify name them) and {again} them again"
