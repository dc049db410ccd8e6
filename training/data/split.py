"""Divide objects into training and validation, and among the readers of a stream."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from conf.options import UserError
from pipeline.shards import ShardManifest, duplicates
from training.config import DUPLICATE


@dataclass(frozen=True)
class Shard:
    """Some or all objects of one shard."""

    name: str
    uids: tuple[str, ...]


@dataclass(frozen=True)
class Split:
    """Objects to train on and objects to validate with."""

    training: tuple[Shard, ...]
    validation: tuple[Shard, ...]


def split(manifests: Sequence[ShardManifest], fraction: float, exclude: Collection[str] = ()) -> Split:
    """Divide the objects by the hash of their uid, independently of their shards.

    An object is for validation if its hash, a number in [0, 1), is below `fraction`. If that leaves one set empty, the
    object with the lowest hash is for validation, or the one with the highest hash for training.

    Args:
        manifests: The shards.
        fraction: Share of objects for validation.
        exclude: Verdicts whose objects are excluded from both sets; `duplicate` excludes duplicates.

    Raises:
        UserError: A set that is needed would be empty.
    """
    rendered = {uid for manifest in manifests for uid in manifest.uids}
    if not rendered:
        raise UserError("data.path: no object was rendered; see the reasons in the shards' .json files")
    uids = sorted(rendered - _excluded(manifests, exclude), key=_hash)
    if not uids:
        raise UserError(f"data.exclude={','.join(exclude)}: excludes all {len(rendered)} objects; use fewer verdicts")
    if not 0 <= fraction < 1:
        raise UserError(f"data.validation_fraction={fraction}: must be at least 0 and below 1")
    if fraction and len(uids) < 2:
        raise UserError(f"data.validation_fraction={fraction}: one object cannot be split; render more, or use 0")
    below = sum(_hash(uid) < fraction for uid in uids)
    validation = set(uids[: min(max(below, 1), len(uids) - 1)]) if fraction else set()

    def subset(uids: Collection[str]) -> tuple[Shard, ...]:
        shards = (Shard(m.name, tuple(uid for uid in m.uids if uid in uids)) for m in manifests)
        return tuple(shard for shard in shards if shard.uids)

    return Split(training=subset(set(uids) - validation), validation=subset(validation))


def _excluded(manifests: Sequence[ShardManifest], exclude: Collection[str]) -> set[str]:
    """Return the objects with one of the verdicts in `exclude`."""
    records = (record for manifest in manifests for record in manifest.records)
    excluded = {record.uid for record in records if set(record.verdicts) & set(exclude)}
    return excluded | set(duplicates(manifests) if DUPLICATE in exclude else ())


def share(shards: Sequence[Shard], reader: int, readers: int) -> list[Shard]:
    """Return the objects of one of several readers, which together read every object once.

    Readers get whole shards if there are enough, so that each shard is read once; else every `readers`-th object.
    """
    if len(shards) >= readers:
        return list(shards[reader::readers])
    objects = ((shard.name, uid) for shard in shards for uid in shard.uids)
    kept: dict[str, list[str]] = {}
    for index, (name, uid) in enumerate(objects):
        if index % readers == reader:
            kept.setdefault(name, []).append(uid)
    return [Shard(name, tuple(uids)) for name, uids in kept.items()]


def _hash(uid: str) -> float:
    """Return a number in [0, 1) that depends on the uid alone."""
    return int.from_bytes(hashlib.sha256(uid.encode()).digest()[:6], "big") / 2**48
