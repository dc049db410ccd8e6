"""Select the objects that are scored."""

import io
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from PIL import Image

from conf.options import UserError
from inference.evaluation.config import EvaluateConfig, set_name
from inference.evaluation.pairs import hashed_seed
from pipeline.samples import DamagedShard, Sample, read_samples
from pipeline.shards import ShardManifest, read_manifests
from training.data.sources import Source
from training.data.split import split

MAX_NAMED_OBJECTS = 5  # in an error message


@dataclass(frozen=True)
class Selection:
    """The objects of a folder of view shards that are scored.

    Attributes:
        name: Name of the set in tables and folders.
        folder: Folder or URL of the shards.
        manifests: Manifests of the shards.
        uids: The objects, in an order that depends on the seed only.
        candidates: The objects before `limit`.
    """

    name: str
    folder: str
    manifests: tuple[ShardManifest, ...]
    uids: tuple[str, ...]
    candidates: frozenset[str]

    @property
    def listing(self) -> str:
        """Return a hash of the names and contents of all shards."""
        shards = [[manifest.name, manifest.sha256] for manifest in self.manifests]
        return sha256(json.dumps(shards).encode()).hexdigest()[:16]


def select(config: EvaluateConfig) -> list[Selection]:
    """Return the objects to score of each folder of `views`, from the manifests only; empty sets are left out.

    Raises:
        UserError: A folder is missing, or no object is left to score.
    """
    sources = [Source(folder, tuple(read_manifests(folder, "views"))) for folder in config.views]
    split_sources = [source for source, which in zip(sources, config.splits, strict=True) if which == "held_out"]
    held_out = _held_out(config, split_sources) if split_sources else frozenset()
    selections = []
    for source in sources:
        uids = {uid for manifest in source.manifests for uid in manifest.uids}
        uids &= held_out if source in split_sources else uids
        ordered = sorted(uids, key=lambda uid: (hashed_seed("objects", config.seed, uid), uid))
        name, selected = set_name(source.root), tuple(ordered[: config.limit])
        selections.append(Selection(name, source.root, source.manifests, selected, frozenset(uids)))
    if not any(selection.uids for selection in selections):
        raise UserError(
            f"views={','.join(config.views)}: no object to score; give the views of the training of run, or split=all"
        )
    return [selection for selection in selections if selection.uids]


def _held_out(config: EvaluateConfig, sources: Sequence[Source]) -> frozenset[str]:
    """Return the objects that training held out: as its run lists them, or by the split of these sources."""
    if config.run:
        return read_held_out(Path(config.run))
    validation = split(sources, config.validation_fraction).validation
    return frozenset(uid for shard in validation for uid in shard.uids)


def read_held_out(run: Path) -> frozenset[str]:
    """Return the uids of the objects that a run held out of training.

    Raises:
        UserError: The folder is not a run, or it held out no object.
    """
    try:
        uids = (run / "validation.txt").read_text().split()
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"run={run}: has no validation.txt; give the output of training.finetune") from None
    if not uids:
        raise UserError(f"run={run}: held out no object; train with data.validation_fraction above 0")
    return frozenset(uids)


def require_resolution(contents: bytes, resolution: int, option: str) -> None:
    """Raise `UserError` if an encoded view is smaller than the pictures of the model; a larger one is reduced."""
    with Image.open(io.BytesIO(contents)) as image:
        side = image.width
    if side < resolution:
        raise UserError(
            f"{option}: the views have {side}² pixels, the model's {resolution}²; "
            f"render them with renderer.resolution={resolution}"
        )


def samples_of(folder: str, manifests: Sequence[ShardManifest], uids: Collection[str]) -> Iterator[tuple[str, Sample]]:
    """Yield the samples of the objects `uids`; shards without any of them are not read.

    Raises:
        DamagedShard: A shard is damaged, or lacks an object that its manifest names.
    """
    for manifest in manifests:
        wanted = set(uids).intersection(manifest.uids)
        for uid, sample in read_samples(folder, manifest.name) if wanted else ():
            if uid in wanted:
                wanted.remove(uid)
                yield uid, sample
        if wanted:
            raise DamagedShard(folder, manifest.name, f"{min(wanted)} is missing")


def named(uids: Collection[str]) -> str:
    """Return the first names of `uids` in order, and how many more there are."""
    first = sorted(uids)[:MAX_NAMED_OBJECTS]
    more = len(uids) - len(first)
    return ", ".join(first) + (f" and {more} more" if more else "")
