"""View shards to view pairs: two views of an object, condition and target, and the pose between them.

Everything is a pure function of (seed, epoch, uid), so a stream can be replayed, continued and divided among
ranks and loader workers without talk between them.
"""

import hashlib
import itertools
import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from tarfile import TarError

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from conf.options import UserError
from pipeline.shards import Marker, Sample, duplicates, npy_array, read_samples, view_names
from rendering.cameras import relative_pose
from training.config import DUPLICATE, DataConfig
from training.model.picture import decode
from training.model.zero123 import Pairs

log = logging.getLogger(__name__)

# What PIL, numpy and tarfile raise over damaged contents.
UNREADABLE = (OSError, ValueError, KeyError, EOFError, SyntaxError, TarError, Image.DecompressionBombError)


@dataclass(frozen=True)
class Shard:
    """Some objects of one shard."""

    name: str
    uids: tuple[str, ...]


@dataclass(frozen=True)
class Split:
    training: tuple[Shard, ...]
    validation: tuple[Shard, ...]


def split(markers: Sequence[Marker], fraction: float, without: Collection[str] = ()) -> Split:
    """Divide the objects by the hash of their uid, whatever shard they lie in.

    An object is validation where its hash, as a number in [0, 1), is below `fraction`. Where that leaves a
    side empty, the object with the lowest hash is validation, or the one with the highest is training.
    Objects with a verdict that is in `without` are on neither, nor are duplicates where that has `duplicate`.

    Raises:
        UserError: no object at all, or one that should be on both sides.
    """
    rendered = {uid for marker in markers for uid in marker.uids}
    if not rendered:
        raise UserError("the shards hold no object that was rendered; see the reasons in their markers")
    uids = sorted(rendered - _unwanted(markers, without), key=_hash)
    if not uids:
        raise UserError(f"data.without={','.join(without)} leaves no object of {len(rendered)}; name fewer verdicts")
    if not 0 <= fraction < 1:
        raise UserError(f"data.validation_fraction={fraction} must be at least 0 and below 1")
    if fraction and len(uids) < 2:
        raise UserError("one object cannot be split; render more, or set data.validation_fraction=0")
    below = sum(_hash(uid) < fraction for uid in uids)
    held_out = set(uids[: min(max(below, 1), len(uids) - 1)]) if fraction else set()

    def side(uids: Collection[str]) -> tuple[Shard, ...]:
        kept = (Shard(m.name, tuple(uid for uid in m.uids if uid in uids)) for m in markers)
        return tuple(shard for shard in kept if shard.uids)

    return Split(training=side(set(uids) - held_out), validation=side(held_out))


def _unwanted(markers: Sequence[Marker], without: Collection[str]) -> set[str]:
    """The objects that one of the words in `without` applies to."""
    judged = {record.uid for marker in markers for record in marker.records if set(record.verdicts) & set(without)}
    return judged | set(duplicates(markers) if DUPLICATE in without else ())


def share(shards: Sequence[Shard], consumer: int, consumers: int) -> list[Shard]:
    """What one of several readers reads; together they read every object once.

    Whole shards where there are enough, so that each is read by one; else every `consumers`-th object.
    """
    if len(shards) >= consumers:
        return list(shards[consumer::consumers])
    numbered = ((shard.name, uid) for shard in shards for uid in shard.uids)
    kept: dict[str, list[str]] = {}
    for index, (name, uid) in enumerate(numbered):
        if index % consumers == consumer:
            kept.setdefault(name, []).append(uid)
    return [Shard(name, tuple(uids)) for name, uids in kept.items()]


def choose_pairs(seed: int, epoch: int, uid: str, views: int, pairs: int) -> list[tuple[int, int]]:
    """(condition, target) indices of an object in an epoch, two different views each time."""
    rng = np.random.default_rng([seed, epoch, *_words(uid)])
    return [(int(c), int(t)) for c, t in (rng.choice(views, 2, replace=False) for _ in range(pairs))]


class ViewPairs(IterableDataset[Pairs]):
    """The stream of one rank: endless with `epochs=None`, else so many passes.

    A shard's objects are held in memory while their pairs are dealt in random order; the order of the shards
    changes with the epoch. What cannot be read is dropped, counted in `dropped` (shared with the worker
    processes) and named in the log, once.
    """

    def __init__(
        self,
        config: DataConfig,
        shards: Sequence[Shard],
        resolution: int,
        seed: int,
        pairs_per_object: int,
        epochs: int | None = None,
        taken: int = 0,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        """`taken` batches were dealt to this rank in an earlier run, which the stream now continues."""
        super().__init__()
        self.config, self.shards, self.resolution, self.seed = config, tuple(shards), resolution, seed
        self.pairs_per_object, self.epochs = pairs_per_object, epochs
        self.taken, self.rank, self.ranks = taken, rank, ranks
        self.dropped = torch.zeros(1, dtype=torch.int64).share_memory_()
        self._named: set[str] = set()
        self._cache: dict[tuple[str, int], NDArray[np.uint8]] = {}
        self._cache_size = config.cache_mb * 2**20 // (3 * resolution**2)

    def __iter__(self) -> Iterator[Pairs]:
        worker = get_worker_info()
        workers, index = (worker.num_workers, worker.id) if worker else (1, 0)
        # A loader asks its workers in turn, from the first: that one continues with the batch that is due.
        role = (index + self.taken) % workers
        skip = (self.taken - role + workers - 1) // workers * self.config.batch_size
        consumer, consumers = self.rank * workers + role, self.ranks * workers
        for epoch in itertools.count() if self.epochs is None else range(self.epochs):
            dealt = 0
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.shards))
            for shard in share([self.shards[i] for i in order], consumer, consumers):
                size = len(shard.uids) * self.pairs_per_object
                if skip >= size:
                    skip, dealt = skip - size, dealt + size
                    continue
                for pair in self._deal(shard, epoch, skip):
                    dealt += 1
                    yield pair
                skip = 0
            if not dealt and self.epochs is None:
                raise UserError(f"no object of {self.config.path} can be read; see the log, and render it again")

    def _deal(self, shard: Shard, epoch: int, skip: int) -> Iterator[Pairs]:
        samples = self._read(shard)
        deck = [(uid, turn) for uid in shard.uids for turn in range(self.pairs_per_object)]
        order = np.random.default_rng([self.seed, epoch, *_words(shard.name)]).permutation(len(deck))
        for uid, turn in (deck[i] for i in order[skip:]):
            try:
                yield self._pair(uid, samples[uid], epoch, turn)
            except UNREADABLE as error:
                self._drop(uid, error)

    def _read(self, shard: Shard) -> dict[str, Sample]:
        wanted, samples = set(shard.uids), {}
        try:
            for uid, sample in read_samples(self.config.path, shard.name):
                if uid in wanted:
                    samples[uid] = sample
        except UNREADABLE as error:
            log.warning("%s.tar is damaged, the rest of it is lost: %s", shard.name, error)
        return samples

    def _pair(self, uid: str, sample: Sample, epoch: int, turn: int) -> Pairs:
        cameras, names = npy_array(sample["cameras.npy"]), view_names(sample)
        if len(names) < 2 or cameras.shape != (len(names), 3, 4):
            raise ValueError(f"{len(names)} views with cameras of shape {cameras.shape}")
        pairs = choose_pairs(self.seed, epoch, uid, len(names), self.pairs_per_object)
        condition, target = pairs[turn]
        pose = relative_pose(cameras[target], cameras[condition])
        if not np.isfinite(pose).all():
            raise ValueError("cameras that are not finite")
        return {
            "condition": self._view(uid, sample[names[condition]], condition),
            "target": self._view(uid, sample[names[target]], target),
            "pose": torch.from_numpy(pose.astype(np.float32)),
        }

    def _view(self, uid: str, contents: bytes, index: int) -> Tensor:
        pixels = self._cache.get((uid, index))
        if pixels is None:
            pixels = decode(contents, self.resolution, self.config.background)
            if len(self._cache) < self._cache_size:
                self._cache[uid, index] = pixels
        return torch.from_numpy(pixels).permute(2, 0, 1).float() / 127.5 - 1

    def _drop(self, uid: str, error: Exception) -> None:
        if uid not in self._named:
            self._named.add(uid)
            self.dropped += 1
            missing = isinstance(error, KeyError)
            log.warning("dropped %s: %s", uid, f"{error} is missing from its shard" if missing else repr(error))


def training_batches(
    config: DataConfig, shards: Sequence[Shard], resolution: int, seed: int, taken: int, rank: int, ranks: int
) -> DataLoader[Pairs]:
    """The endless batches of a rank that has taken so many of them already."""
    objects = sum(len(shard.uids) for shard in shards)
    if objects < ranks:
        raise UserError(f"{objects} training objects cannot feed {ranks} devices; render more, or use fewer")
    pairs = ViewPairs(config, shards, resolution, seed, config.pairs_per_object, taken=taken, rank=rank, ranks=ranks)
    # A worker without an object would have nothing to give, ever.
    return _loader(pairs, config.batch_size, workers=min(config.workers, objects // ranks))


def validation_batches(
    config: DataConfig, shards: Sequence[Shard], resolution: int, seed: int, rank: int, ranks: int
) -> DataLoader[Pairs]:
    """One pass over the pairs of the rank's validation objects, the same ones each time."""
    pairs = ViewPairs(config, shards, resolution, seed, config.validation_pairs, epochs=1, rank=rank, ranks=ranks)
    return _loader(pairs, config.batch_size, workers=0 if len(shards) < 4 else config.workers)


def fixed_pairs(config: DataConfig, shards: Sequence[Shard], resolution: int, seed: int, count: int) -> Pairs:
    """The first pairs of one pass over the shards, from different objects as far as there are enough."""
    chosen = itertools.islice(ViewPairs(config, shards, resolution, seed, 1, epochs=None), count)
    return torch.utils.data.default_collate(list(chosen))


def _loader(pairs: ViewPairs, batch_size: int, workers: int) -> DataLoader[Pairs]:
    return DataLoader(
        pairs,
        batch_size=batch_size,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


def _hash(uid: str) -> float:
    """A number in [0, 1) that depends on nothing but the uid."""
    return int.from_bytes(hashlib.sha256(uid.encode()).digest()[:6], "big") / 2**48


def _words(text: str) -> list[int]:
    """The text as 32-bit words of a seed."""
    return np.frombuffer(hashlib.sha256(text.encode()).digest(), dtype="<u4").tolist()
