"""View shards to view pairs: two different views of an object, condition and target, and the pose between them.

Everything is a pure function of (seed, epoch, uid), so a stream can be replayed, continued and divided among
ranks and loader workers without talk between them.
"""

import hashlib
import io
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from tarfile import TarError

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from conf.options import UserError
from pipeline.shards import Marker, Sample, npy_array, read_markers, read_samples, view_names
from rendering.cameras import relative_pose
from training.config import Background, DataConfig
from training.model.zero123 import Pairs

log = logging.getLogger(__name__)

LARGEST_SIDE = 4096  # pixels; a larger picture is taken for damage before it fills the memory
UNREADABLE = (OSError, ValueError, KeyError, SyntaxError, TarError)  # what PIL, numpy and tarfile raise


@dataclass(frozen=True)
class Shard:
    """Some objects of one shard."""

    name: str
    uids: tuple[str, ...]


@dataclass(frozen=True)
class Split:
    training: tuple[Shard, ...]
    validation: tuple[Shard, ...]


def split(markers: Sequence[Marker], fraction: float) -> Split:
    """Divide the objects by the hash of their uid, whatever shard they lie in.

    An object is validation where its hash, as a number in [0, 1), is below `fraction`. Where that leaves a side
    empty, the object with the lowest hash is validation, or the one with the highest is training.

    Raises:
        UserError: no object at all, or one that should be on both sides.
    """
    uids = sorted((uid for marker in markers for uid in marker.uids), key=_hash)
    if not uids:
        raise UserError("the shards hold no object that was rendered; see the reasons in their markers")
    if not 0 <= fraction < 1:
        raise UserError(f"data.validation_fraction={fraction} must be at least 0 and below 1")
    if fraction and len(uids) < 2:
        raise UserError("one object cannot be split; render more, or set data.validation_fraction=0")
    below = sum(_hash(uid) < fraction for uid in uids)
    held_out = set(uids[: min(max(below, 1), len(uids) - 1)]) if fraction else set()

    def side(held: bool) -> tuple[Shard, ...]:
        kept = (Shard(m.name, tuple(uid for uid in m.uids if (uid in held_out) == held)) for m in markers)
        return tuple(shard for shard in kept if shard.uids)

    return Split(training=side(False), validation=side(True))


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


def decode(contents: bytes, resolution: int, background: Background) -> NDArray[np.uint8]:
    """One encoded view to `[R, R, 3]` on white.

    Raises:
        OSError, ValueError, SyntaxError: it is no picture, or an absurdly large one.
    """
    with Image.open(io.BytesIO(contents)) as image:
        if max(image.size) > LARGEST_SIDE:
            raise ValueError(f"a picture of {image.width} × {image.height} pixels")
        rgba = np.asarray(image.convert("RGBA"), dtype=np.float32) / 255
    white = Image.fromarray(np.round(on_white(rgba, background) * 255).astype(np.uint8))
    if white.size != (resolution, resolution):
        white = white.resize((resolution, resolution), Image.Resampling.BICUBIC)  # PIL antialiases
    return np.array(white)


def on_white(rgba_HW4: NDArray[np.float32], background: Background) -> NDArray[np.float32]:
    """Straight-alpha colours in [0, 1] on a white background, `[H, W, 3]`."""
    rgb, alpha = rgba_HW4[..., :3], rgba_HW4[..., 3:]
    if background is Background.composite:
        return rgb * alpha + (1 - alpha)
    return np.where(alpha == 0, np.float32(1), rgb)


class ViewPairs(IterableDataset[Pairs]):
    """The stream of one rank: endless with `epochs=None`, else `epochs` passes.

    A shard's objects are held in memory while their pairs are dealt in random order; the order of shards
    changes with the epoch. What cannot be read is dropped, counted in `dropped` (shared between the worker
    processes) and named in the log once.
    """

    def __init__(
        self,
        root: str,
        shards: Sequence[Shard],
        resolution: int,
        pairs_per_object: int,
        seed: int,
        background: Background = Background.composite,
        epochs: int | None = None,
        start: int = 0,
        rank: int = 0,
        ranks: int = 1,
        cache_mb: int = 0,
    ) -> None:
        """`start` is the number of pairs that the rank has taken from this stream already."""
        self.root, self.shards, self.resolution, self.background = root, tuple(shards), resolution, background
        self.pairs_per_object, self.seed, self.epochs, self.start = pairs_per_object, seed, epochs, start
        self.rank, self.ranks = rank, ranks
        self.dropped = torch.zeros(1, dtype=torch.int64).share_memory_()
        self._named: set[str] = set()
        self._cache: dict[tuple[str, int], NDArray[np.uint8]] = {}
        self._cache_size = cache_mb * 2**20 // (3 * resolution**2)
