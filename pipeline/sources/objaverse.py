"""Source of Objaverse 1.0 objects: selection among 800,000 objects, download and cache."""

import difflib
import os
from collections import Counter
from collections.abc import Callable, Container
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import ClassVar

import numpy as np

from conf.options import UserError, option
from pipeline.sources.cache import make_room, take
from pipeline.sources.catalogue import Catalogue, Note, note
from pipeline.sources.download import Transport, download
from pipeline.sources.source import Asset
from pipeline.sources.uid_list import read_uids
from rendering.blender_process import BlenderProcess

DATASET = "datasets/allenai/objaverse/resolve/main"
LICENSES = ("by", "by-sa", "by-nd", "by-nc", "by-nc-sa", "by-nc-nd", "cc0")


@dataclass(frozen=True)
class ObjaverseObjects:
    """Source of the Objaverse objects that pass all filters, in a seeded order so that any `limit` is a random sample.

    Files that the `objaverse` package downloaded are used and never removed. Downloads of this source are kept next to
    them in the folder `rendered`, where the least recently used files are evicted. Each node of a cluster has its own
    cache.
    """

    downloads: ClassVar[bool] = True
    uids: str | None = option(
        None, "file with the uids to take, one per line or a JSON list (valid_paths.json); null: all"
    )
    lvis: list[str] = option([], "LVIS categories to take, e.g. [chair,teapot]; []: all")
    licenses: list[str] = option([], f"licences to take; []: all of {', '.join(LICENSES)}")
    min_triangles: int | None = option(None, "minimum number of triangles; objects of unknown number are left out")
    max_triangles: int | None = option(None, "maximum number of triangles; objects of unknown number are left out")
    max_megabytes: float | None = option(None, "maximum size of a file in MB; files of unknown size are taken")
    min_likes: int | None = option(None, "minimum number of likes on Sketchfab")
    limit: int | None = option(None, "maximum number of objects, the first in order; null: all, about 800,000")
    seed: int = option(0, "seed of the order of the objects")
    endpoint: str = option(
        os.environ.get("HF_ENDPOINT") or "https://huggingface.co",
        "URL of the hub that has the dataset; the variable HF_ENDPOINT sets it too",
    )
    cache: str | None = option(None, "folder for catalogue and downloads; null: the package's, ~/.objaverse")
    cache_gigabytes: float = option(
        50.0, "maximum size of the downloads on each machine; the least recently used are deleted"
    )
    download_gigabytes: float = option(2.0, "maximum size of one download in GB")
    retries: int = option(6, "retries of a download")
    backoff: float = option(1.0, "seconds; retry n waits a random time of up to backoff times 2 to the n")
    timeout: float = option(30.0, "seconds without a byte after which an attempt fails")
    deadline: float = option(900.0, "seconds for one download, with all retries")

    def __post_init__(self) -> None:
        if self.cache is not None:  # `fetch` runs in tasks, which have another working folder on a cluster
            object.__setattr__(self, "cache", str(Path(self.cache).expanduser().absolute()))

    def find(self) -> list[Asset]:
        """Return the objects that pass all filters, in the seeded order, up to `limit`.

        Raises:
            UserError: An option is invalid, the catalogue cannot be read, or no object passes a filter.
        """
        self._check()
        catalogue = Catalogue(self.folder(), self._url(), self._transport())
        paths = catalogue.paths()
        uids = sorted(paths)
        np.random.default_rng(self.seed).shuffle(uids)
        if self.uids is not None:
            uids = _among(uids, _listed(self.uids, paths), f"objects.uids={self.uids}")
        if self.lvis:
            uids = _among(uids, _categories(self.lvis, catalogue.categories()), f"objects.lvis={','.join(self.lvis)}")
        filters = self._filters()
        if not filters:
            uids = uids[: self.limit]
        assets = _annotated(uids, paths, catalogue, filters)
        return [assets[uid] for uid in uids if uid in assets][: self.limit]

    def folder(self) -> Path:
        """Return the folder of the catalogue and of the files that the `objaverse` package downloaded."""
        if self.cache is not None:
            return Path(self.cache) / "hf-objaverse-v1"
        import objaverse

        return Path(objaverse.BASE_PATH) / "hf-objaverse-v1"

    def fetch(self, asset: Asset, folder: Path, renderer: BlenderProcess) -> Path:
        """Return the local file of the object, downloaded first if no cache has it.

        A file of this source's own cache is linked into the scratch `folder`, so that eviction cannot remove it.

        Raises:
            RenderFailure: The download failed.
            UserError: The cache cannot be written.
        """
        cached = self.folder() / asset.origin
        if cached.is_file():
            return cached
        downloads = self.folder().with_name("rendered")
        added = 0
        try:
            while True:
                try:
                    taken = take(downloads / asset.origin, folder)
                    break
                except FileNotFoundError:  # not downloaded yet, or evicted right after the download
                    added = download(f"{self._url()}/{asset.origin}", downloads / asset.origin, self._transport())
            if added:
                make_room(downloads, added, int(self.cache_gigabytes * 10**9))
        except OSError as error:
            raise UserError(f"objects.cache: {downloads} cannot be written ({error}); choose another folder") from error
        return taken

    def _url(self) -> str:
        return f"{self.endpoint.rstrip('/')}/{DATASET}"

    def _transport(self) -> Transport:
        max_bytes = int(self.download_gigabytes * 10**9)
        return Transport(self.retries, self.backoff, self.timeout, self.deadline, max_bytes)

    def _check(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise UserError(f"objects.limit={self.limit}: must be at least 1")
        if unknown := set(self.licenses) - set(LICENSES):
            raise UserError(f"objects.licenses={min(unknown)}: unknown licence; choose from {', '.join(LICENSES)}")
        if not self.endpoint.startswith(("http://", "https://")):
            raise UserError(
                f"objects.endpoint={self.endpoint}: must begin with http:// or https:// (HF_ENDPOINT sets it too)"
            )
        for name in ("cache_gigabytes", "download_gigabytes", "timeout", "deadline"):
            if not getattr(self, name) > 0:
                raise UserError(f"objects.{name}={getattr(self, name)}: must be positive")
        for name in ("retries", "backoff", "seed"):
            if not getattr(self, name) >= 0:
                raise UserError(f"objects.{name}={getattr(self, name)}: must not be negative")

    def _filters(self) -> dict[str, Callable[[Note], bool]]:
        """Return the active filters by option. An object with an unknown count does not pass a bound on this count."""
        min_triangles, max_triangles, min_likes = self.min_triangles, self.max_triangles, self.min_likes
        licenses, max_megabytes = self.licenses, self.max_megabytes
        filters: dict[str, Callable[[Note], bool]] = {}
        if licenses:
            filters[f"objects.licenses={','.join(licenses)}"] = lambda note: note.license in licenses
        if min_triangles is not None:
            filters[f"objects.min_triangles={min_triangles}"] = lambda note: (
                note.triangles is not None and note.triangles >= min_triangles
            )
        if max_triangles is not None:
            filters[f"objects.max_triangles={max_triangles}"] = lambda note: (
                note.triangles is not None and note.triangles <= max_triangles
            )
        if max_megabytes is not None:
            filters[f"objects.max_megabytes={max_megabytes:g}"] = lambda note: (
                (note.bytes or 0) <= max_megabytes * 10**6
            )
        if min_likes is not None:
            filters[f"objects.min_likes={min_likes}"] = lambda note: note.likes is not None and note.likes >= min_likes
        return filters


def _annotated(
    uids: list[str], paths: dict[str, str], catalogue: Catalogue, filters: dict[str, Callable[[Note], bool]]
) -> dict[str, Asset]:
    """Return the assets, with licence and author, of the `uids` that pass all `filters`.

    Raises:
        UserError: No object passes a filter.
    """

    def folder(uid: str) -> str:
        return paths[uid].split("/")[1]

    groups = {name: list(group) for name, group in groupby(sorted(uids, key=folder), key=folder)}
    assets: dict[str, Asset] = {}
    passed: Counter[str] = Counter()
    for group, annotations in zip(groups.values(), catalogue.notes(list(groups)), strict=True):
        for uid in group:
            found = note(annotations.get(uid))
            for name, passes in filters.items():
                if not passes(found):
                    break
                passed[name] += 1
            else:
                assets[uid] = Asset(uid, paths[uid], found.license, found.author)
    before = len(uids)
    for name in filters:
        if not passed[name]:
            raise UserError(f"{name}: none of the remaining {before:,} objects passes; widen the filter")
        before = passed[name]
    return assets


def _among(uids: list[str], wanted: Container[str], what: str) -> list[str]:
    if chosen := [uid for uid in uids if uid in wanted]:
        return chosen
    raise UserError(f"{what}: none of the remaining {len(uids):,} objects passes; widen the filter")


def _categories(names: list[str], categories: dict[str, list[str]]) -> set[str]:
    for name in names:
        if name not in categories:
            near = difflib.get_close_matches(name, categories, n=5, cutoff=0.5) or sorted(categories)[:5]
            raise UserError(f"objects.lvis={name}: unknown category; similar are {', '.join(near)}")
    return {uid for name in names for uid in categories[name]}


def _listed(path: str, known: Container[str]) -> set[str]:
    """Return the uids in the file `path`.

    Raises:
        UserError: The file cannot be read, or names an object that is not in `known`.
    """
    uids = read_uids(path)
    if unknown := [uid for uid in uids if uid not in known]:
        raise UserError(
            f"objects.uids={path}: {len(unknown):,} of {len(uids):,} not in Objaverse, e.g. {unknown[0]}; remove them"
        )
    return set(uids)
