"""Tables next to the shards: outcome of each object (objects.csv), and licences and authors (licenses.csv)."""

from collections.abc import Iterable, Iterator

from pipeline.csv_file import csv_file
from pipeline.plan import ShardJob
from pipeline.shards import ShardManifest, duplicates, find_manifests
from pipeline.sources.source import Asset
from pipeline.storage import write_atomically

OBJECTS = (
    "uid", "shard", "status", "reason", "detail", "verdicts", "duplicate_of", "license", "author", "source", "seconds",
)  # fmt: skip
LICENSES = ("uid", "license", "author", "source")


def write_tables(root: str, jobs: Iterable[ShardJob]) -> None:
    """Write objects.csv and licenses.csv, as CSV of RFC 4180 in UTF-8.

    objects.csv lists all objects. licenses.csv lists the objects with views, whose authors need credit.

    Args:
        root: Folder or URL of the committed shards.
        jobs: Jobs of all shards, for the assets.
    """
    assets = {asset.uid: asset for job in jobs for asset in job.assets}
    manifests = find_manifests(root, "views")
    firsts = duplicates(manifests)
    write_atomically(f"{root}/objects.csv", csv_file(OBJECTS, _outcomes(manifests, assets, firsts)))
    credited = (assets[uid] for manifest in manifests for uid in manifest.uids)
    write_atomically(f"{root}/licenses.csv", csv_file(LICENSES, ((a.uid, *_rights(a)) for a in credited)))


def _outcomes(
    manifests: list[ShardManifest], assets: dict[str, Asset], firsts: dict[str, str]
) -> Iterator[tuple[object, ...]]:
    for manifest in manifests:
        for record in manifest.records:
            outcome = record.status, record.reason, record.detail
            flags = " ".join(record.verdicts), firsts.get(record.uid, "")
            yield (record.uid, manifest.name, *outcome, *flags, *_rights(assets[record.uid]), record.seconds)


def _rights(asset: Asset) -> tuple[str, str, str]:
    return asset.license, asset.author, asset.origin
