"""Read the samples of some objects from view shards."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from conf.options import UserError
from inference.evaluation.benchmarks.views import DamagedViews, ObjectViews
from pipeline.samples import DamagedShard, Sample, npy_array, read_samples, view_names
from pipeline.shards import ShardManifest
from rendering.cameras import invalid_cameras


def unique_uids(folder: str, manifests: Sequence[ShardManifest], option: str = "views") -> set[str]:
    """Return the objects of a folder of shards; raise `UserError` if two samples have one uid."""
    counts = Counter(uid for manifest in manifests for uid in manifest.uids)
    if repeated := sorted(uid for uid, count in counts.items() if count > 1):
        raise UserError(
            f"{option}={folder}: {repeated[0]} is the uid of {counts[repeated[0]]} objects; keep the shard of one"
        )
    return set(counts)


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


def object_views(folder: str, uid: str, sample: Sample, option: str = "views") -> ObjectViews:
    """Return the views in a sample; raise `DamagedViews` unless they are numbered from 000 on, a camera for each."""
    names = view_names(sample)
    try:
        cameras = npy_array(sample["cameras.npy"])
    except (KeyError, ValueError) as error:
        raise DamagedViews(folder, uid, f"it has no valid cameras ({error})", option) from None
    views = valid_views(folder, ObjectViews(uid, tuple(sample[name] for name in names), cameras), option)
    if names != [f"{view:03d}.webp" for view in range(len(cameras))]:
        reason = f"{len(names)} pictures and {len(cameras)} cameras; give one for each, from 000"
        raise DamagedViews(folder, uid, reason, option)
    return views


def valid_views(folder: str, views: ObjectViews, option: str = "views") -> ObjectViews:
    """Return the views of an object; raise `DamagedViews` unless they have valid cameras."""
    if reason := invalid_cameras(views.cameras):
        raise DamagedViews(folder, views.uid, reason, option)
    return views
