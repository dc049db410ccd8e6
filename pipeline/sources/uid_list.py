"""Read a list of uids and choose the objects that it names."""

import json
from collections.abc import Sequence
from pathlib import Path

from conf.options import UserError
from pipeline.sources.source import Asset

UIDS_HELP = "file with the uids to take, one per line or a JSON list; uids of other sources are ignored; null: all"


def read_uids(path: str) -> list[str]:
    """Return the uids in a file with one uid per line or a JSON list; folders and the suffix .glb are ignored.

    Raises:
        UserError: The file cannot be read.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        names = json.loads(text) if text.lstrip().startswith("[") else text.split()
    except (OSError, ValueError) as error:
        raise UserError(
            f"objects.uids={path}: cannot be read ({error}); give a file with a uid per line, or a JSON list"
        ) from error
    return [str(name).rstrip("/").rsplit("/", 1)[-1].removesuffix(".glb") for name in names]


def among_listed(assets: Sequence[Asset], path: str | None) -> list[Asset]:
    """Return the assets whose uid is in the file `path`, in their order; all if it is None.

    Raises:
        UserError: The file cannot be read, or names none of them.
    """
    if path is None:
        return list(assets)
    uids = set(read_uids(path))
    if not (listed := [asset for asset in assets if asset.uid in uids]):
        raise UserError(
            f"objects.uids={path}: none of its {len(uids)} uids is one of the {len(assets)} objects; give another file"
        )
    return listed
