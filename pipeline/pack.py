"""Convert the released Zero-1-to-3 renders to view shards without extracting them.

    python -m pipeline.pack path=views_release.tar.gz valid=valid_paths.json output=outputs/zero123
    python -m pipeline.pack path=s3://bucket/views_release.tar.gz resolution=256 output=s3://bucket/views
    python -m pipeline.pack path=views_release output=outputs/zero123

Objects are folders <uid> with images 000.png … (RGBA, straight alpha) and cameras 000.npy … ([3, 4], world to
camera), in a folder or, at any depth, in a tar, which is read once from start to end. Pixels and cameras are copied
unchanged, unless `resolution` downsamples the images by averaging. An object with an invalid layout is recorded with
its reason, and the run continues. To resume, run the same command again: finished shards are skipped.
"""

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain, count, islice
from pathlib import Path

from tqdm import tqdm

from conf.command import run
from conf.options import UserError
from pipeline.config import PackConfig
from pipeline.output import FolderLayout, claimed, is_own, json_object, require_apart
from pipeline.parallel import ParallelMap, process_pool
from pipeline.shards import ObjectRecord, ShardWriter, find_manifests, read_plan, require_same_plan, shard_name
from pipeline.storage import locate, write_atomically
from pipeline.summary import summarise
from pipeline.zero123_release.object_conversion import to_sample
from pipeline.zero123_release.release_layout import (
    LISTING,
    ReleasedObject,
    no_objects,
    objects_of_folder,
    objects_of_tar,
    read_listing,
)

LAYOUT = FolderLayout(
    record="plan.json",
    is_record=lambda contents: {"listing", "limit", "objects_per_shard"} <= json_object(contents).keys(),
    writes=r"views-\d{6}\.(tar|json)|plan\.json",
)


def main(config: PackConfig) -> int:
    """Pack the renders at `config.path` into shards at `config.output`; return the exit code.

    Raises:
        UserError: The input is missing or holds no objects, or the output belongs to another run.
    """
    folder = Path(config.path)
    if "://" not in config.path and not folder.exists():
        raise UserError(f"path={config.path}: no such file or folder; give the folder or the tar of the renders")
    if folder.is_dir():
        require_apart(config.output, config.path, "path", nested=not is_own(config.output, LAYOUT))
    with claimed(config.output, LAYOUT):
        return pack_all(config, folder)


def pack_all(config: PackConfig, folder: Path) -> int:
    """Pack the objects that the output does not contain yet.

    Args:
        config: Settings of the command.
        folder: `config.path` as a local path; it does not exist for a URL.

    Returns:
        Exit code: 1 where more than `max_failure_rate` of the objects failed, else 0.

    Raises:
        UserError: The input holds no objects, or the output was begun with other settings or objects.
    """
    valid = config.valid or (str(folder / LISTING) if (folder / LISTING).is_file() else None)
    listed = read_listing(valid) if valid else None
    found = objects_of_folder(folder, listed)[: config.limit] if folder.is_dir() else None
    uids = [item.uid for item in found] if found else sorted(listed or ())
    plan: dict[str, object] = {
        "listing": hashlib.sha256("\n".join(uids).encode()).hexdigest(),
        **{name: getattr(config, name) for name in ("resolution", "limit", "objects_per_shard")},
        **(_extent(len(found), config) if found else _file(config)),
    }
    require_same_plan(config.output, plan)
    done = find_manifests(config.output, "views")
    records = [record for manifest in done for record in manifest.records]
    if (read_plan(config.output) or {}).get("shards") != len(done):
        unit = {"unit": " objects"} if found else {"unit": "B", "unit_scale": True}
        with tqdm(total=len(found) if found else _size(config.path), desc="packing", smoothing=0.1, **unit) as bar:
            objects = found or islice(objects_of_tar(config.path, listed, bar.update), config.limit)
            records = []
            for record in _pack(config, objects, {manifest.name: manifest.records for manifest in done}):
                records.append(record)
                bar.set_postfix(objects=len(records), refresh=False)
                bar.update(1 if found else 0)
        if not records:
            raise no_objects(config.path)
        # The number of shards of a tar is unknown until the whole tar is read.
        plan |= _extent(len(records), config) | ({} if found else {"bytes": _size(config.path)})
        write_atomically(f"{config.output}/plan.json", json.dumps(plan, indent=1).encode())
    return summarise(config.output, records, config.max_failure_rate, "details: the manifests of the shards")


def _extent(objects: int, config: PackConfig) -> dict[str, object]:
    return {"objects": objects, "shards": -(-objects // config.objects_per_shard)}


def _file(config: PackConfig) -> dict[str, object]:
    """Return what identifies a tar: its name, and its size where an earlier run read it to its end."""
    name = config.path.rstrip("/").rsplit("/", 1)[-1]
    complete = "bytes" in (read_plan(config.output) or {})
    return {"tar": name, **({"bytes": _size(config.path)} if complete else {})}


def _size(url: str) -> int | None:
    """Return the size of a file in bytes, or None where the file system does not report it."""
    fs, path = locate(url)
    try:
        return fs.size(path)
    except Exception:  # exception types differ by file system; opening the file later raises a clearer error
        return None


def _pack(
    config: PackConfig, objects: Iterable[ReleasedObject], done: dict[str, tuple[ObjectRecord, ...]]
) -> Iterator[ObjectRecord]:
    """Write and commit the missing shards; yield the record of each object when it is complete."""
    stream = iter(objects)
    with process_pool(config.workers) as spread:
        for index in count():
            if (first := next(stream, None)) is None:
                return
            name, items = shard_name("views", index), chain([first], islice(stream, config.objects_per_shard - 1))
            yield from _skipped(config, items, done[name]) if name in done else _shard(config, name, items, spread)


def _skipped(
    config: PackConfig, items: Iterable[ReleasedObject], records: tuple[ObjectRecord, ...]
) -> Iterator[ObjectRecord]:
    """Yield the records of a finished shard, after comparing its uids with those of `items`."""
    uids = [item.uid for item in items]
    if uids != [record.uid for record in records]:
        raise UserError(f"output={config.output}: holds shards of other objects; choose another folder")
    yield from records


def _shard(
    config: PackConfig, name: str, items: Iterable[ReleasedObject], spread: ParallelMap
) -> Iterator[ObjectRecord]:
    records: list[ObjectRecord] = []
    with ShardWriter(config.output, name) as shard:
        for sample, record in spread(partial(to_sample, resolution=config.resolution), items):
            records.append(record)
            if sample:
                shard.add(record.uid, sample)
            else:
                tqdm.write(f"  {record.uid}: {record.reason}: {record.detail}", file=sys.stderr)
            yield record
        shard.commit(records)


def command() -> None:
    """Run the command line."""
    run(main, PackConfig, "pipeline", "pack", help=__doc__)


if __name__ == "__main__":
    command()
