"""Which objects are trained on, which are held out, and what each of several readers reads."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from conf.options import UserError
from pipeline.shards import ShardManifest, duplicates
from training.config import DUPLICATE


@dataclass(frozen=True)
class Shard:
    """Some objects of one shard."""

    name: str
    uids: tuple[str, ...]


@dataclass(frozen=True)
class Split:
    training: tuple[Shard, ...]
    validation: tuple[Shard, ...]


def split(markers: Sequence[ShardManifest], fraction: float, exclude: Collection[str] = ()) -> Split:
    """Divide the objects by the hash of their uid, whatever shard they lie in.

    An object is validation where its hash, as a number in [0, 1), is below `fraction`. Where that leaves a
    side empty, the object with the lowest hash is validation, or the one with the highest is training.
    Objects with a verdict that is in `exclude` are on neither, nor are duplicates where that has `duplicate`.

    Raises:
        UserError: no object at all, or one that should be on both sides.
    """
    rendered = {uid for marker in markers for uid in marker.uids}
    if not rendered:
        raise UserError("the shards hold no object that was rendered; see the reasons in their markers")
    uids = sorted(rendered - _unwanted(markers, exclude), key=_hash)
    if not uids:
        raise UserError(f"data.exclude={','.join(exclude)} leaves no object of {len(rendered)}; name fewer verdicts")
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


def _unwanted(markers: Sequence[ShardManifest], exclude: Collection[str]) -> set[str]:
    """The objects that one of the words in `exclude` applies to."""
    judged = {record.uid for marker in markers for record in marker.records if set(record.verdicts) & set(exclude)}
    return judged | set(duplicates(markers) if DUPLICATE in exclude else ())


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


def _hash(uid: str) -> float:
    """A number in [0, 1) that depends on nothing but the uid."""
    return int.from_bytes(hashlib.sha256(uid.encode()).digest()[:6], "big") / 2**48
