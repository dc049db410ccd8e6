"""Select the objects that are scored."""

import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from conf.options import UserError
from inference.evaluation.benchmarks.benchmark import Benchmark
from inference.evaluation.benchmarks.view_sources import open_views
from inference.evaluation.benchmarks.views import ViewSource
from inference.evaluation.config import EvaluateConfig, set_name
from inference.evaluation.pairs import hashed_seed
from pipeline.shards import read_manifests
from training.data.sources import Source
from training.data.split import split

MAX_NAMED_OBJECTS = 5  # in an error message


@dataclass(frozen=True)
class Selection:
    """The objects of a folder of views that are scored.

    Attributes:
        name: Name of the set in tables and folders.
        source: The views of the folder.
        uids: The objects, in an order that depends on the seed only.
        candidates: The objects before `limit`.
    """

    name: str
    source: ViewSource
    uids: tuple[str, ...]
    candidates: frozenset[str]


def select(config: EvaluateConfig, benchmarks: Sequence[Benchmark]) -> list[Selection]:
    """Return the objects to score of each folder of `views`, without reading a picture; empty sets are left out.

    Args:
        config: Options of the command.
        benchmarks: Benchmarks, which give the cameras of pictures without any.

    Raises:
        UserError: A folder is missing, or no object is left to score.
    """
    split_folders = [folder for folder, which in zip(config.views, config.splits, strict=True) if which == "held_out"]
    held_out = _held_out(config, split_folders) if split_folders else frozenset()
    selections = []
    for folder in config.views:
        source = open_views(folder, benchmarks)
        uids = held_out.intersection(source.uids) if folder in split_folders else frozenset(source.uids)
        ordered = sorted(uids, key=lambda uid: (hashed_seed("objects", config.seed, uid), uid))
        selections.append(Selection(set_name(folder), source, tuple(ordered[: config.limit]), uids))
    if not any(selection.uids for selection in selections):
        raise UserError(
            f"views={','.join(config.views)}: no object to score; give the views of the training of run, or split=all"
        )
    return [selection for selection in selections if selection.uids]


def _held_out(config: EvaluateConfig, folders: Sequence[str]) -> frozenset[str]:
    """Return the objects that training held out: as its run lists them, or by the split of these folders of shards."""
    if config.run:
        return read_held_out(Path(config.run))
    sources = [Source(folder, tuple(read_manifests(folder, "views"))) for folder in folders]
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


def named(uids: Collection[str]) -> str:
    """Return the first names of `uids` in order, and how many more there are."""
    first = sorted(uids)[:MAX_NAMED_OBJECTS]
    more = len(uids) - len(first)
    return ", ".join(first) + (f" and {more} more" if more else "")
