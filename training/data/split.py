"""Divide objects into training and validation, and among the readers of a stream."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from conf.options import UserError
from pipeline.shards import duplicates
from training.config import DUPLICATE
from training.data.sources import Source


@dataclass(frozen=True)
class Shard:
    """Some or all objects of one shard.

    Attributes:
        root: Folder or URL of the shard.
        name: Name of the shard, which is unique in its source.
        uids: Objects.
        source: Number of the source in `data.path`.
    """

    root: str
    name: str
    uids: tuple[str, ...]
    source: int = 0

    @property
    def key(self) -> tuple[int, str]:
        """Source and name, which identify the shard in a run."""
        return self.source, self.name


@dataclass(frozen=True)
class Split:
    """Objects to train on and objects to validate with."""

    training: tuple[Shard, ...]
    validation: tuple[Shard, ...]


def split(sources: Sequence[Source], fraction: float, exclude: Collection[str] = ()) -> Split:
    """Divide the objects by the hash of their uid, independently of their shards and sources.

    An object is for validation if its hash, a number in [0, 1), is below `fraction`. If that leaves one set empty, the
    object with the lowest hash is for validation, or the one with the highest hash for training. Objects of equal uid
    in two sources are in the same set.

    Args:
        sources: The shards of each source.
        fraction: Share of objects for validation.
        exclude: Verdicts whose objects are excluded from both sets; `duplicate` excludes duplicates.

    Raises:
        UserError: A set that is needed would be empty.
    """
    rendered = {(i, uid) for i, source in enumerate(sources) for manifest in source.manifests for uid in manifest.uids}
    if not rendered:
        raise UserError("data.path: no object was rendered; see the reasons in the shards' .json files")
    included = rendered - _excluded(sources, exclude)
    if not included:
        raise UserError(f"data.exclude={','.join(exclude)}: excludes all {len(rendered)} objects; use fewer verdicts")
    if not 0 <= fraction < 1:
        raise UserError(f"data.validation_fraction={fraction}: must be at least 0 and below 1")
    uids = sorted({uid for _, uid in included}, key=_hash)
    if fraction and len(uids) < 2:
        raise UserError(f"data.validation_fraction={fraction}: one object cannot be split; render more, or use 0")
    below = sum(_hash(uid) < fraction for uid in uids)
    validation = set(uids[: min(max(below, 1), len(uids) - 1)]) if fraction else set()

    def subset(chosen: Collection[tuple[int, str]]) -> tuple[Shard, ...]:
        shards = (
            Shard(source.root, manifest.name, tuple(uid for uid in manifest.uids if (i, uid) in chosen), i)
            for i, source in enumerate(sources)
            for manifest in source.manifests
        )
        return tuple(shard for shard in shards if shard.uids)

    held_out = {key for key in included if key[1] in validation}
    return Split(training=subset(included - held_out), validation=subset(held_out))


def _excluded(sources: Sequence[Source], exclude: Collection[str]) -> set[tuple[int, str]]:
    """Return source and uid of the objects with one of the verdicts in `exclude`."""
    excluded: set[tuple[int, str]] = set()
    meshes: set[str] = set()  # of the sources before
    for i, source in enumerate(sources):
        records = [record for manifest in source.manifests for record in manifest.records]
        excluded |= {(i, record.uid) for record in records if set(record.verdicts) & set(exclude)}
        if DUPLICATE in exclude:
            excluded |= {(i, uid) for uid in duplicates(source.manifests)}
            excluded |= {(i, record.uid) for record in records if record.mesh in meshes}
            meshes |= {record.mesh for record in records if record.status == "ok" and record.mesh}
    return excluded


def share(shards: Sequence[Shard], reader: int, readers: int) -> list[Shard]:
    """Return the objects of one of several readers, which together read every object once.

    Readers get whole shards if there are enough, so that each shard is read once; else every `readers`-th object.
    """
    if len(shards) >= readers:
        return list(shards[reader::readers])
    objects = ((number, uid) for number, shard in enumerate(shards) for uid in shard.uids)
    kept: dict[int, list[str]] = {}
    for index, (number, uid) in enumerate(objects):
        if index % readers == reader:
            kept.setdefault(number, []).append(uid)
    return [replace(shards[number], uids=tuple(uids)) for number, uids in kept.items()]


def _hash(uid: str) -> float:
    """Return a number in [0, 1) that depends on the uid alone."""
    return int.from_bytes(hashlib.sha256(uid.encode()).digest()[:6], "big") / 2**48
