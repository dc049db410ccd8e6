"""Objaverse's catalogue: where each object lies, its LVIS category, and what its annotation says.

The files are brought into the cache of the `objaverse` package as the package keeps them itself, so that a cache
that is there already is used, and the package reads them from there without a network.
"""

import gzip
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from conf.options import UserError
from pipeline.sources.download import Transport, download
from rendering.failure import RenderFailure

Value = TypeVar("Value")
DOWNLOADS = 8  # annotation files at a time
OBJECT_PATH = re.compile(r"glbs/[\w-]+/([\w-]{1,200})\.glb", re.ASCII)


@dataclass(frozen=True, slots=True)
class Note:
    """What an object's annotation says that matters here; None and "" where it says nothing."""

    license: str = ""
    author: str = ""
    triangles: int | None = None
    bytes: int | None = None
    likes: int | None = None


@dataclass(frozen=True)
class Catalogue:
    """The dataset at `url`, with its files in `folder`, the package's `hf-objaverse-v1`."""

    folder: Path
    url: str
    transport: Transport

    def paths(self) -> dict[str, str]:
        """Path in the dataset by uid, of all 800,000 objects.

        Raises:
            UserError: it cannot be had, or is not what it should be; so do the others.
        """
        paths = self._read("object-paths.json.gz", lambda package: package._load_object_paths())
        for uid, path in paths.items():
            # It names files to write and addresses to ask for.
            if not (found := OBJECT_PATH.fullmatch(path)) or found[1] != uid:
                raise UserError(f"{self.folder / 'object-paths.json.gz'} lists {uid!r} at {path!r}, which is no object")
        return paths

    def categories(self) -> dict[str, list[str]]:
        """Uids by LVIS category."""
        return self._read("lvis-annotations.json.gz", lambda package: package.load_lvis_annotations())

    def notes(self, folders: list[str]) -> Iterator[dict[str, Any]]:
        """The annotations of each of `folders` ("000-023"), by uid: one file at a time, since all fill the memory."""

        def read(path: Path) -> dict[str, Any]:
            # Not by the package's load_annotations: for every file it reads the paths of all objects again.
            with gzip.open(path) as file:
                return json.load(file)

        names = [f"metadata/{folder}.json.gz" for folder in folders]
        with ThreadPoolExecutor(DOWNLOADS) as pool:
            try:
                bar = tqdm(pool.map(self._bring, names), "annotations", len(names), unit=" files", delay=2)
                for path in bar:
                    yield self._sound(path, partial(read, path))
            finally:
                pool.shutdown(cancel_futures=True)

    def _read(self, name: str, read: Callable[[Any], Value]) -> Value:
        """What the package makes of one of its files, after the file is there."""
        import objaverse  # an import of half a second that only this source needs

        path = self._bring(name)
        objaverse._VERSIONED_PATH = str(self.folder)  # it has no other way to be told
        return self._sound(path, lambda: read(objaverse))

    def _bring(self, name: str) -> Path:
        path = self.folder / name
        try:
            if not path.is_file():
                download(f"{self.url}/{name}", path, self.transport)
        except RenderFailure as failure:
            raise UserError(
                f"the Objaverse catalogue cannot be reached ({failure.detail}); check the network or name a mirror "
                "(objects.endpoint, HF_ENDPOINT), or render your own objects with objects=folder objects.path=…"
            ) from failure
        except OSError as error:
            raise UserError(f"objects.cache: {path} cannot be written ({error}); choose another folder") from error
        return path

    def _sound(self, path: Path, read: Callable[[], Value]) -> Value:
        try:
            return read()
        except (EOFError, OSError, ValueError, zlib.error) as error:
            raise UserError(f"{path} is damaged ({error}); delete it, and the next run fetches it again") from error


def note(annotation: dict[str, Any]) -> Note:
    """An annotation as Sketchfab writes it. Triangles and bytes are those of the GLB."""
    user = annotation.get("user") or {}
    glb = (annotation.get("archives") or {}).get("glb") or {}
    return Note(
        license=_text(annotation.get("license")),
        author=_text(user.get("displayName") or user.get("username")),
        triangles=_number(glb.get("faceCount"), annotation.get("faceCount")),
        bytes=_number(glb.get("size")),
        likes=_number(annotation.get("likeCount")),
    )


def _text(value: Any) -> str:
    """One copy of each; half a surrogate pair, which JSON can hold and a file cannot, becomes a question mark."""
    return sys.intern(str(value or "").encode(errors="replace").decode())


def _number(*values: Any) -> int | None:
    """The first that is one."""
    return next((int(value) for value in values if isinstance(value, int | float)), None)
