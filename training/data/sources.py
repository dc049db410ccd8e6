"""Read the sources of a run: one or several folders of shards."""

import io
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from conf.options import UserError
from pipeline.samples import UNDECODABLE, DamagedShard, read_samples, view_names
from pipeline.shards import Kind, ShardManifest, read_manifests
from pipeline.storage import normalised
from training.config import DataConfig, DataKind


@dataclass(frozen=True)
class Source:
    """The committed shards of one folder.

    Attributes:
        root: Folder or URL.
        manifests: Manifests of its shards, in order.
    """

    root: str
    manifests: tuple[ShardManifest, ...]


def source_roots(path: str) -> list[str]:
    """Return the folders and URLs in a list that is separated by commas.

    A folder that exists with commas in its name is one folder.
    """
    if "," not in path or os.path.exists(path):
        return [path]
    roots = [root.strip() for root in path.split(",")]
    # The command line expands a `~` at the beginning of the list only.
    return [os.path.expanduser(root) if root.startswith("~/") else root for root in roots]


def read_sources(path: str, kind: Kind, name: str = "data.path") -> tuple[Source, ...]:
    """Read the manifests of all sources.

    Args:
        path: Folders and URLs of shards, separated by commas.
        kind: Kind of the shards.
        name: Name of the option that holds `path`.

    Raises:
        UserError: A source is missing, holds no committed shard, or is named twice.
    """
    roots = source_roots(path)
    if len(roots) > 1:
        _require_different(roots, path, name)
    return tuple(Source(root, tuple(read_manifests(root, kind))) for root in roots)


def training_sources(config: DataConfig) -> tuple[Source, ...]:
    """Read the sources of a training.

    Raises:
        UserError: As in `read_sources`; the weights do not match the sources; the views of two sources differ in size.
    """
    roots = source_roots(config.path)
    if config.weights and len(config.weights) != len(roots):
        given = f"{len(config.weights)} weight{'s' * (len(config.weights) > 1)}"
        raise UserError(
            f"data.weights={list(config.weights)}: {given} for {len(roots)} "
            f"source{'s' * (len(roots) > 1)} in data.path={config.path}; give one for each"
        )
    sources = read_sources(config.path, config.kind.value)
    if len(sources) > 1:
        for source in sources:
            if not any(manifest.uids for manifest in source.manifests):
                raise UserError(
                    f"data.path: no object of {source.root} was rendered; see the reasons in the shards' .json files"
                )
        if config.kind is DataKind.views:
            _require_one_size(sources)
    return sources


def pairs_of_weight(pairs_per_object: int, weight: float) -> int:
    """Return the pairs per object and epoch of a source: `pairs_per_object * weight`, rounded, and at least 1."""
    return max(1, math.floor(pairs_per_object * weight + 0.5))


def _require_different(roots: Sequence[str], path: str, name: str) -> None:
    if "" in roots:
        raise UserError(f"{name}={path}: a name between the commas is empty; write folder,folder,…")
    firsts: dict[str, str] = {}
    for root in roots:
        if (first := firsts.setdefault(normalised(root), root)) is not root:
            same = f"names {root} twice" if first == root else f"{first} and {root} are one folder"
            raise UserError(f"{name}={path}: {same}; name it once, with a larger weight in data.weights")


def _require_one_size(sources: Sequence[Source]) -> None:
    sizes = {source.root: size for source in sources if (size := _view_size(source))}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{root} {width} × {height}" for root, (width, height) in sizes.items())
        raise UserError(
            f"data.path: views of different sizes in pixels: {listed}; render the sources at one renderer.resolution"
        )


def _view_size(source: Source) -> tuple[int, int] | None:
    """Return width and height of the first view that can be read; None if its shard is damaged."""
    manifest = next(manifest for manifest in source.manifests if manifest.uids)
    try:
        for _, sample in read_samples(source.root, manifest.name):
            for name in view_names(sample):
                with Image.open(io.BytesIO(sample[name]), formats=["WEBP"]) as image:
                    return image.size
    except (DamagedShard, *UNDECODABLE):
        pass
    return None
