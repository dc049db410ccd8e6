"""Write view shards in the layout of the original's released renders.

    python -m pipeline.export path=outputs/views output=outputs/views_release

Each object has a folder <uid> with images 000.png … (RGBA, straight alpha) and cameras 000.npy … ([3, 4], world to
camera). valid_paths.json, written last, lists the uids in the order of the shards. Pixels and cameras are bit-identical
to the shards. To resume, run the same command again: existing objects are skipped.
"""

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tqdm import tqdm

from conf.command import run
from conf.options import UserError
from pipeline.config import ExportConfig
from pipeline.output import FolderLayout, claimed, json_object
from pipeline.parallel import process_pool
from pipeline.samples import Sample, read_samples
from pipeline.shards import ShardManifest, read_manifests
from pipeline.storage import write_atomically
from pipeline.uid import require_uid
from pipeline.zero123_release.object_conversion import write_object
from pipeline.zero123_release.release_layout import LISTING

PLAN = "export.json"
LAYOUT = FolderLayout(
    record=PLAN,
    is_record=lambda contents: all(re.fullmatch(r"views-\d{6}", name) for name in json_object(contents) or [""]),
    writes=".*",  # an object may have any name
)


def main(config: ExportConfig) -> None:
    """Export the shards at `config.path` to the folder `config.output`.

    Raises:
        UserError: An object's uid cannot name a folder, a shard is damaged, or the output holds other files.
    """
    manifests = read_manifests(config.path, "views")
    uids = list(dict.fromkeys(uid for manifest in manifests for uid in manifest.uids))
    for uid in uids:
        require_uid(uid, f"path={config.path}: uid")
    with claimed(config.output, LAYOUT):
        export_all(config, manifests, uids)


def export_all(config: ExportConfig, manifests: list[ShardManifest], uids: list[str]) -> None:
    """Write the objects that are missing in the output, then the list of all uids."""
    output = Path(config.output)
    _require_same_shards(output, {manifest.name: manifest.sha256 for manifest in manifests})
    missing = {uid for uid in uids if not (output / uid).exists()}
    with (
        tqdm(
            total=len(uids), initial=len(uids) - len(missing), desc="exporting", unit=" objects", smoothing=0.1
        ) as bar,
        process_pool(config.workers) as spread,
    ):
        for _ in spread(partial(write_object, root=output), _take(config.path, manifests, missing)):
            bar.update()
    if missing:
        fault = f"{min(missing)} is in a manifest but not in its tar"
        raise UserError(f"path={config.path}: {fault}; check the shards with python -m pipeline.verify")
    write_atomically(str(output / LISTING), json.dumps(uids).encode())
    print(f"views of {len(uids)} objects in {output}")


def _require_same_shards(output: Path, shards: dict[str, str]) -> None:
    """Raise an error if the output was begun from other shards; a run may add shards later."""
    plan = output / PLAN
    if plan.is_file() and not json_object(plan.read_bytes()).items() <= shards.items():
        raise UserError(f"output={output}: holds an export of other shards; choose another folder")
    write_atomically(str(plan), json.dumps(shards, indent=1).encode())


def _take(root: str, manifests: list[ShardManifest], missing: set[str]) -> Iterator[tuple[str, Sample]]:
    """Yield the samples of the objects in `missing` and remove their uids from it; skip shards without such objects."""
    for manifest in manifests:
        if missing.isdisjoint(manifest.uids):
            continue
        for uid, sample in read_samples(root, manifest.name):
            if uid in missing:
                missing.remove(uid)
                yield uid, sample


def command() -> None:
    """Run the command line."""
    run(main, ExportConfig, "pipeline", "export", help=__doc__)


if __name__ == "__main__":
    command()
