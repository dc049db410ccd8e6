"""Read the samples of some objects from view shards."""

from collections.abc import Collection, Iterator, Sequence

from pipeline.samples import DamagedShard, Sample, read_samples
from pipeline.shards import ShardManifest


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
