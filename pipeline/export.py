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
from tarfile import TarError

from tqdm import tqdm

from conf.command import run
from conf.options import UserError
from pipeline.config import ExportConfig
from pipeline.output import FolderLayout, claimed, json_object
from pipeline.parallel import process_pool
from pipeline.shards import UID, Sample, ShardManifest, read_manifests, read_samples
from pipeline.storage import write_atomically
from pipeline.zero123_release.conversion import write_object
from pipeline.zero123_release.layout import LISTING

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
    markers = read_manifests(config.path, "views")
    uids = list(dict.fromkeys(uid for marker in markers for uid in marker.uids))
    if strange := [uid for uid in uids if not UID.fullmatch(uid)]:
        raise UserError(f"{config.path} holds an object {strange[0]!r:.300}, which cannot name a folder")
    with claimed(config.output, LAYOUT):
        export_all(config, markers, uids)


def export_all(config: ExportConfig, markers: list[ShardManifest], uids: list[str]) -> None:
    """Write the objects that are missing in the output, then the list of all uids."""
    output = Path(config.output)
    _agree(output, {marker.name: marker.sha256 for marker in markers})
    missing = {uid for uid in uids if not (output / uid).exists()}
    with (
        tqdm(
            total=len(uids), initial=len(uids) - len(missing), desc="exporting", unit=" objects", smoothing=0.1
        ) as bar,
        process_pool(config.workers) as spread,
    ):
        for _ in spread(partial(write_object, root=output), _take(config.path, markers, missing)):
            bar.update()
    if missing:
        sentence = f"{config.path} lacks {min(missing)}, which its markers name"
        raise UserError(f"{sentence}; see python -m pipeline.verify path={config.path}")
    write_atomically(str(output / LISTING), json.dumps(uids).encode())
    print(f"views of {len(uids)} objects in {output}")


def _agree(output: Path, shards: dict[str, str]) -> None:
    """Raise an error if the output was begun from other shards; a run may add shards later."""
    plan = output / PLAN
    if plan.is_file() and not json_object(plan.read_bytes()).items() <= shards.items():
        raise UserError(f"{output} was begun from other shards; choose another output, or delete that folder")
    write_atomically(str(plan), json.dumps(shards, indent=1).encode())


def _take(root: str, markers: list[ShardManifest], missing: set[str]) -> Iterator[tuple[str, Sample]]:
    """Yield the samples of the objects in `missing` and remove their uids from it; skip shards without such objects."""
    for marker in markers:
        if missing.isdisjoint(marker.uids):
            continue
        try:
            for uid, sample in read_samples(root, marker.name):
                if uid in missing:
                    missing.remove(uid)
                    yield uid, sample
        except (OSError, ValueError, TarError) as error:
            sentence = f"shard {marker.name} is damaged ({error!r}); see python -m pipeline.verify path={root}"
            raise UserError(sentence) from error


def command() -> None:
    """Run the command line."""
    run(main, ExportConfig, "pipeline", "export", help=__doc__)


if __name__ == "__main__":
    command()
