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
    uids: str | None = option(None, "take only these: a file with a uid per line, or a JSON list (valid_paths.json)")
    lvis: list[str] = option([], "take only these LVIS categories, as [chair,teapot]")
    licenses: list[str] = option([], f"take only these licences: {', '.join(LICENSES)}")
    min_triangles: int | None = option(None, "take only objects with at least so many triangles")
    max_triangles: int | None = option(None, "take only objects with at most so many triangles")
    max_megabytes: float | None = option(None, "take only objects whose file is not larger, where its size is known")
    min_likes: int | None = option(None, "take only objects that so many people liked")
    limit: int | None = option(None, "take only the first so many objects (all: about 800,000)")
    seed: int = option(0, "of the order in which objects are taken")
    endpoint: str = option(
        os.environ.get("HF_ENDPOINT") or "https://huggingface.co", "where the dataset lies; HF_ENDPOINT sets it too"
    )
    cache: str | None = option(None, "folder for catalogue and downloads; by default the package's, ~/.objaverse")
    cache_gigabytes: float = option(50.0, "downloads kept on each machine; the least recently used make room")
    download_gigabytes: float = option(2.0, "refuse to download a file that is larger")
    retries: int = option(6, "times a download is tried again")
    backoff: float = option(1.0, "seconds; the n-th wait between them is a random part of backoff times 2 to the n")
    timeout: float = option(30.0, "seconds without a byte after which a connection is given up")
    deadline: float = option(900.0, "seconds after which a download is given up")

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
            return Path(self.cache).expanduser().absolute() / "hf-objaverse-v1"
        import objaverse

        return Path(objaverse.BASE_PATH) / "hf-objaverse-v1"

    def fetch(self, asset: Asset, folder: Path, renderer: BlenderProcess) -> Path:
        """Return the local file of the object, downloaded first if no cache has it.

        A file of this source's own cache is linked into the scratch `folder`, so that eviction cannot remove it.

        Raises:
            RenderFailure: The download failed.
            UserError: The cache cannot be written.
        """
        theirs = self.folder() / asset.origin
        if theirs.is_file():
            return theirs
        ours = self.folder().with_name("rendered")
        added = 0
        try:
            while True:
                try:
                    taken = take(ours / asset.origin, folder)
                    break
                except FileNotFoundError:  # not downloaded yet, or evicted right after the download
                    added = download(f"{self._url()}/{asset.origin}", ours / asset.origin, self._transport())
            if added:
                make_room(ours, added, int(self.cache_gigabytes * 10**9))
        except OSError as error:
            raise UserError(f"objects.cache: {ours} cannot be written ({error}); choose another folder") from error
        return taken

    def _url(self) -> str:
        return f"{self.endpoint.rstrip('/')}/{DATASET}"

    def _transport(self) -> Transport:
        most = int(self.download_gigabytes * 10**9)
        return Transport(self.retries, self.backoff, self.timeout, self.deadline, most)

    def _check(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise UserError(f"objects.limit={self.limit}: ask for at least one object")
        if unknown := set(self.licenses) - set(LICENSES):
            raise UserError(f"objects.licenses: there is no {min(unknown)}; choose from {', '.join(LICENSES)}")
        if not self.endpoint.startswith(("http://", "https://")):
            raise UserError(f"objects.endpoint={self.endpoint} must begin with https:// (see HF_ENDPOINT)")
        for name in ("cache_gigabytes", "download_gigabytes", "timeout", "deadline"):
            if not getattr(self, name) > 0:
                raise UserError(f"objects.{name}={getattr(self, name)} must be positive")
        for name in ("retries", "backoff"):
            if not getattr(self, name) >= 0:
                raise UserError(f"objects.{name}={getattr(self, name)} must not be negative")

    def _filters(self) -> dict[str, Callable[[Note], bool]]:
        """Return the active filters by option. An object with an unknown count does not pass a bound on this count."""
        fewest, most, likes = self.min_triangles, self.max_triangles, self.min_likes
        licenses, megabytes = self.licenses, self.max_megabytes
        filters: dict[str, Callable[[Note], bool]] = {}
        if licenses:
            filters[f"objects.licenses={','.join(licenses)}"] = lambda note: note.license in licenses
        if fewest is not None:
            filters[f"objects.min_triangles={fewest}"] = lambda note: (
                note.triangles is not None and note.triangles >= fewest
            )
        if most is not None:
            filters[f"objects.max_triangles={most}"] = lambda note: (
                note.triangles is not None and note.triangles <= most
            )
        if megabytes is not None:
            filters[f"objects.max_megabytes={megabytes:g}"] = lambda note: (note.bytes or 0) <= megabytes * 10**6
        if likes is not None:
            filters[f"objects.min_likes={likes}"] = lambda note: note.likes is not None and note.likes >= likes
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
            found = note(annotations.get(uid) or {})
            for name, passes in filters.items():
                if not passes(found):
                    break
                passed[name] += 1
            else:
                assets[uid] = Asset(uid, paths[uid], found.license, found.author)
    before = len(uids)
    for name in filters:
        if not passed[name]:
            raise UserError(f"{name}: none of the {before:,} objects that remained before this filter passes it")
        before = passed[name]
    return assets


def _among(uids: list[str], wanted: Container[str], what: str) -> list[str]:
    if chosen := [uid for uid in uids if uid in wanted]:
        return chosen
    raise UserError(f"{what}: none of the {len(uids):,} objects that remained before this filter passes it")


def _categories(names: list[str], categories: dict[str, list[str]]) -> set[str]:
    for name in names:
        if name not in categories:
            near = difflib.get_close_matches(name, categories, n=5, cutoff=0.5) or sorted(categories)[:5]
            raise UserError(f"objects.lvis: there is no category {name}; near to it are {', '.join(near)}")
    return {uid for name in names for uid in categories[name]}


def _listed(path: str, known: Container[str]) -> set[str]:
    """Return the uids in the file `path`.

    Raises:
        UserError: The file cannot be read, or names an object that is not in `known`.
    """
    uids = read_uids(path)
    if unknown := [uid for uid in uids if uid not in known]:
        raise UserError(f"objects.uids: {len(unknown):,} of {len(uids):,} are not in Objaverse, as {unknown[0]}")
    return set(uids)
