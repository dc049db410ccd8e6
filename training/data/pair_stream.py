"""Stream shards as view pairs: condition, target and the relative pose.

Every value is a pure function of (seed, epoch, uid) and, for the order, of the shard's place in `data.path`, so that a
stream can be replayed, resumed, and divided among ranks and loader workers without communication.
"""

import hashlib
import itertools
import logging
import math
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from conf.options import UserError
from pipeline.samples import UNDECODABLE, DamagedShard, Sample, read_samples
from training.config import DataConfig, DataKind
from training.data.object_cache import ObjectCache
from training.data.sources import pairs_of_weight
from training.data.split import Shard, share
from training.data.stream_state import StreamState
from training.data.view_pairs import Fields, Views, choose_pairs, choose_reflected, open_latents, open_views
from training.data.workers import shared_zeros
from training.model.picture import decode

log = logging.getLogger(__name__)

UNREAD, READABLE, DROPPED = range(3)  # status of an object on a rank


class NothingReadable(UserError):
    """No object of a stream is readable."""


class PairStream(IterableDataset[Fields | UserError]):
    """The view pairs of one rank, as dictionaries of arrays.

    With views, a pair has `condition` and `target`, uint8 `[R, R, 3]`; with latents, float16 moments `[2C, h, w]` and
    the condition's `embedding` `[D]`. Both have `pose` `[4]` (`rendering.cameras.relative_pose`), `condition_polar`
    (radians from +z) and `slot`.

    A rank has one reader per loader worker, or one reader without workers. A reader holds a shard's objects in memory
    while it yields their pairs in random order; the order of shards changes with the epoch. A shard is not read again
    while all its objects are cached. An unreadable object is dropped, counted in `dropped` and logged once. A worker
    yields a `UserError` as its last item, because torch would turn a raised one into a traceback.

    Args:
        config: Options of the data.
        shards: Objects to read.
        resolution: Side of the images in pixels.
        seed: Seed of pairs and order.
        pairs_per_object: Pairs per object and epoch.
        weights: For each source, a factor of `pairs_per_object`; empty: 1 each.
        epochs: Number of passes; None for an endless stream.
        stream_state: State to continue from, for the present number of readers or for none.
        rank: This rank.
        ranks: Number of ranks.
    """

    def __init__(
        self,
        config: DataConfig,
        shards: Sequence[Shard],
        resolution: int,
        seed: int,
        pairs_per_object: int,
        weights: Sequence[float] = (),
        epochs: int | None = None,
        stream_state: StreamState = StreamState(),
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        super().__init__()
        self.config, self.shards, self.resolution, self.seed = config, tuple(shards), resolution, seed
        self.pairs_per_object, self.weights, self.epochs = pairs_per_object, tuple(weights), epochs
        self.stream_state, self.rank, self.ranks = stream_state, rank, ranks
        sizes = [len(shard.uids) for shard in self.shards]
        offsets = itertools.accumulate(sizes, initial=0)
        self._whole = {shard.key: (shard, first) for shard, first in zip(self.shards, offsets, strict=False)}
        self._status = shared_zeros([sum(sizes)], torch.uint8)  # of each object
        self._latent_shapes: tuple[tuple[int, ...], ...] = ()  # of a view of the first object
        self._cache = ObjectCache(config.cache_mb << 20)
        self._damaged: set[int] = set()  # objects that this process read and could not open

    @property
    def _several_sources(self) -> bool:
        return len({shard.source for shard in self.shards}) > 1

    @property
    def dropped(self) -> int:
        """Number of objects that this rank could not read, in whole or in part."""
        return int((self._status == DROPPED).sum())

    def __iter__(self) -> Iterator[Fields | UserError]:
        worker = get_worker_info()
        workers, index = (worker.num_workers, worker.id) if worker else (1, 0)
        # A loader asks its workers in turn, beginning with worker 0, which must continue with the next batch.
        role = (index + self.stream_state.batches // self.ranks) % workers
        try:
            yield from self._read_as(role * self.ranks + self.rank, workers * self.ranks)
        except UserError as error:
            if worker is None:
                raise
            yield error

    def _read_as(self, reader: int, readers: int) -> Iterator[Fields]:
        """Yield the pairs of one of all readers, from the stream state on."""
        used, slot = self.stream_state.used[reader] if self.stream_state.used else 0, 0
        for epoch in itertools.count() if self.epochs is None else range(self.epochs):
            yielded = False
            order = self._random(epoch).permutation(len(self.shards))
            # The share changes with the epoch, so that no reader has unreadable objects only and never yields.
            for shard in share([self.shards[i] for i in order], (reader + epoch) % readers, readers):
                next_slot = slot + len(shard.uids) * self._pairs_of(shard)
                if next_slot > used:
                    for pair in self._shuffled_pairs(shard, epoch, slot, used):
                        yielded = True
                        yield pair
                slot = next_slot
            if self.epochs is None and not yielded and self.dropped == len(self._status):
                raise NothingReadable(f"data.path={self.config.path}: no object is readable; {_remedy(self.config)}")

    def _shuffled_pairs(self, shard: Shard, epoch: int, slot: int, used: int) -> Iterator[Fields]:
        """Yield the pairs of a shard, whose first slot is `slot`, except those in slots below `used`."""
        status, pairs_per_object = self._status.numpy(), self._pairs_of(shard)
        whole, first = self._whole[shard.key]
        indices = {uid: first + i for i, uid in enumerate(whole.uids)}
        cached = self._cache.find(indices[uid] for uid in shard.uids)
        complete = all(indices[uid] in cached or indices[uid] in self._damaged for uid in shard.uids)
        samples = {} if complete else self._read(shard)
        opened: dict[str, tuple[Views, list[tuple[int, int, bool]]]] = {}  # with the arguments of `Views.pair`
        entries = [(uid, number) for uid in shard.uids for number in range(pairs_per_object)]
        # Seeded by the shard's number and not its name, so that views and latents have the same order.
        source = [str(shard.source)] if shard.source else []
        order = self._random(epoch, shard.name.rpartition("-")[2], *source).permutation(len(entries)).tolist()
        for position in range(max(0, used - slot), len(entries)):
            uid, number = entries[order[position]]
            index = indices[uid]
            try:
                if uid not in opened:
                    views = cached.get(index) or self._open(index, samples[uid])
                    opened[uid] = views, self._choose_pairs(epoch, uid, len(views.cameras), pairs_per_object)
                    status[index] = max(status[index], READABLE)
                views, pairs = opened[uid]
                pair = views.pair(*pairs[number])
                self._cache.use(index, views)
            except UNDECODABLE as error:
                if status[index] != DROPPED:
                    status[index] = DROPPED
                    self._drop(shard, uid, error)
                continue
            yield {**pair, "slot": np.array(slot + position)}

    def _choose_pairs(self, epoch: int, uid: str, views: int, count: int) -> list[tuple[int, int, bool]]:
        """Return condition, target and whether to reflect for each pair of an object in an epoch."""
        rng = self._random(epoch, uid)
        pairs = choose_pairs(rng, views, count)
        reflected = choose_reflected(rng, count) if self.config.reflect else [False] * count
        return [(*pair, flip) for pair, flip in zip(pairs, reflected, strict=True)]

    def _read(self, shard: Shard) -> dict[str, Sample]:
        """Return the readable samples of a shard's objects."""
        uids, samples = set(shard.uids), {}
        try:
            for uid, sample in read_samples(shard.root, shard.name):
                if uid in uids:
                    samples[uid] = sample
        except DamagedShard as error:
            name = f"{shard.root}/{shard.name}" if self._several_sources else shard.name
            log.warning("%s.tar is damaged, and its other objects are lost: %s", name, error.reason)
        return samples

    def _open(self, index: int, sample: Sample) -> Views:
        """Open the object `index` of the run; remember it if its sample is damaged."""
        try:
            return self._open_latents(sample) if self.config.kind is DataKind.latents else self._open_views(sample)
        except UNDECODABLE:
            self._damaged.add(index)
            raise

    def _open_views(self, sample: Sample) -> Views:
        return open_views(sample, partial(decode, resolution=self.resolution, background=self.config.background))

    def _open_latents(self, sample: Sample) -> Views:
        views = open_latents(sample)
        shapes = tuple(part.shape for part in views.condition(0).values())
        self._latent_shapes = self._latent_shapes or shapes
        if shapes != self._latent_shapes:
            raise ValueError(f"latents of shape {shapes}, those of other objects {self._latent_shapes}")
        return views

    def _pairs_of(self, shard: Shard) -> int:
        """Return the number of pairs per epoch of each object of a shard."""
        if not self.weights:
            return self.pairs_per_object
        return pairs_of_weight(self.pairs_per_object, self.weights[shard.source])

    def _random(self, epoch: int, *words: str) -> np.random.Generator:
        """Return a generator seeded by the seed, the epoch and the words."""
        digest = hashlib.sha256(" ".join([str(self.seed), str(epoch), *words]).encode()).digest()
        return np.random.default_rng(np.frombuffer(digest, dtype="<u4"))

    def _drop(self, shard: Shard, uid: str, error: Exception) -> None:
        """Log a dropped object.

        Raises:
            UserError: Too many objects are dropped.
        """
        missing = isinstance(error, KeyError)
        name = f"{uid} of {shard.root}" if self._several_sources else uid
        log.warning("dropped %s: %s", name, f"{error} is missing from its shard" if missing else repr(error))
        # The rate is of the objects that this rank has tried to read, which are at least its share of all.
        objects, tried = len(self._status), int((self._status != UNREAD).sum())
        allowed, purpose = self.config.max_bad_rate * max(tried, objects / self.ranks), "training"
        if self.epochs is not None:  # validation has so few objects that the limit is rounded up
            allowed, purpose = math.ceil(allowed), "validation"
        if self.dropped > allowed:
            raise UserError(
                f"data.max_bad_rate={self.config.max_bad_rate:g}: {self.dropped} of {objects} {purpose} objects in "
                f"{self.config.path} are unreadable; {_remedy(self.config)}"
            )


def _remedy(config: DataConfig) -> str:
    command = "encode" if config.kind is DataKind.latents else "render"
    return f"delete the damaged shards (the log and pipeline.verify name them) and {command} them again"
