"""Open the views of a folder: view shards, or a layout in which others publish views of benchmarks.

| layout | files | cameras |
| --- | --- | --- |
| view shards | `views-NNNNNN.tar` and `.json` of `pipeline.render` or `pipeline.pack` | in the shards |
| original | `<uid>/000.png`, also below `<uid>/render_mvs_25/model` as EscherNet's | `000.npy` beside the pictures |
| pictures | `<uid>/000.png` alone, as SyncDreamer's; its `meta.pkl` is never opened | those of the benchmark |
| RTMV | `<scene>/00000.exr` | `00000.json` beside the pictures |
"""

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path

from conf.options import UserError
from inference.evaluation.benchmarks.benchmark import Benchmark
from inference.evaluation.benchmarks.picture_folders import find_pictures, object_files, read_pictures
from inference.evaluation.benchmarks.rtmv import find_scenes, read_scene, scene_files
from inference.evaluation.benchmarks.shard_samples import object_views, samples_of, unique_uids, valid_views
from inference.evaluation.benchmarks.views import ObjectViews, ViewSource
from pipeline.shards import ShardManifest, find_manifests, read_manifests
from pipeline.storage import is_local

TAIL_BYTES = 4096  # holds the checksum of the pixels of a PNG


def open_views(folder: str, benchmarks: Sequence[Benchmark]) -> ViewSource:
    """Return the views of a folder; no picture is read yet.

    Args:
        folder: Folder in one of the layouts above, or URL of view shards.
        benchmarks: Benchmarks that the views are for: they give the cameras of pictures without any, and the number of
            frames and the resolution that are read of RTMV.

    Raises:
        UserError: The folder is missing, or has none of the layouts.
    """
    root = Path(folder)
    if not is_local(folder) or not root.is_dir() or find_manifests(folder, "views"):
        return _shards(folder)
    if scenes := find_scenes(root):
        return _folders(folder, "RTMV", scenes, scene_files, partial(read_scene, benchmarks=benchmarks))
    if objects := find_pictures(root):
        return _folders(folder, "pictures", objects, object_files, partial(read_pictures, benchmarks=benchmarks))
    raise UserError(
        f"views={folder}: has neither view shards nor folders <uid> with 000.png and 000.npy, or 00000.exr and "
        "00000.json; give the output of pipeline.render, or the views of a benchmark"
    )


def _shards(folder: str) -> ViewSource:
    manifests = read_manifests(folder, "views")
    listing = _hash([[manifest.name, manifest.sha256] for manifest in manifests])
    uids = sorted(unique_uids(folder, manifests))
    return ViewSource(folder, "view shards", tuple(uids), listing, partial(_read_shards, folder, manifests))


def _read_shards(folder: str, manifests: Sequence[ShardManifest], uids: Collection[str]) -> Iterator[ObjectViews]:
    for uid, sample in samples_of(folder, manifests, uids):
        yield object_views(folder, uid, sample)


def _folders(
    folder: str,
    layout: str,
    objects: dict[str, Path],
    files_of: Callable[[Path], list[Path]],
    read: Callable[[str, str, Path], ObjectViews],
) -> ViewSource:
    """Return the views of folders, one for each object, that `read` reads."""

    def read_all(uids: Collection[str]) -> Iterator[ObjectViews]:
        for uid in objects:
            if uid in uids:
                yield valid_views(folder, read(folder, uid, objects[uid]))

    listing = _hash([[uid, *map(_fingerprint, files_of(path))] for uid, path in objects.items()])
    return ViewSource(folder, layout, tuple(objects), listing, read_all)


def _fingerprint(path: Path) -> list[object]:
    """Return the name, the size and a hash of the last bytes of a file: cheap, and different if a picture differs."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            return [path.name, size, sha256(file.read()).hexdigest()[:16]]
    except OSError as error:
        raise UserError(f"views: {path} cannot be read ({error.strerror}); repair or remove it") from None


def _hash(value: object) -> str:
    return sha256(json.dumps(value).encode()).hexdigest()[:16]
