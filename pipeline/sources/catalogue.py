"""Objaverse catalogue: path, LVIS category and annotation of each object.

The catalogue files are downloaded into the cache of the `objaverse` package, in the package's own layout. An existing
cache is therefore reused, and the package reads the files without network access.
"""

import gzip
import json
import math
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
from pipeline.uid import is_uid
from rendering.failure import RenderFailure

Value = TypeVar("Value")
DOWNLOADS = 8  # annotation files downloaded concurrently
OBJECT_PATH = re.compile(r"glbs/[\w-]+/([^/]+)\.glb", re.ASCII)


@dataclass(frozen=True, slots=True)
class Note:
    """Fields of an object's annotation that filters and tables use.

    Attributes:
        license: Licence, empty if unknown.
        author: Name of the author, empty if unknown.
        triangles: Number of triangles of the GLB, None if unknown.
        bytes: Size of the GLB in bytes, None if unknown.
        likes: Number of likes on Sketchfab, None if unknown.
    """

    license: str = ""
    author: str = ""
    triangles: int | None = None
    bytes: int | None = None
    likes: int | None = None


@dataclass(frozen=True)
class Catalogue:
    """Catalogue of the Objaverse dataset.

    Attributes:
        folder: Local folder of the catalogue files, in the layout of the package's `hf-objaverse-v1`.
        url: Base URL of the dataset.
        transport: Limits and retries of the downloads.
    """

    folder: Path
    url: str
    transport: Transport

    def paths(self) -> dict[str, str]:
        """Return the path in the dataset of each of the 800,000 objects, by uid.

        Raises:
            UserError: The file cannot be downloaded, is damaged, or lists an invalid path.
        """
        paths = self._read("object-paths.json.gz", lambda package: package._load_object_paths())
        for uid, path in paths.items():
            # The path becomes a local file name and part of a URL, so it must not contain anything else.
            if not (is_uid(uid) and (found := OBJECT_PATH.fullmatch(str(path))) and found[1] == uid):
                raise UserError(
                    f"{self.folder / 'object-paths.json.gz'}: {uid!r} has the invalid path {path!r}; delete the file"
                )
        return paths

    def categories(self) -> dict[str, list[str]]:
        """Return the uids of each LVIS category.

        Raises:
            UserError: The file cannot be downloaded or is damaged.
        """
        categories = self._read("lvis-annotations.json.gz", lambda package: package.load_lvis_annotations())
        return {name: uids if isinstance(uids, list) else [] for name, uids in categories.items()}

    def notes(self, folders: list[str]) -> Iterator[dict[str, Any]]:
        """Yield the annotations of each folder, by uid.

        One file is in use at a time, because all annotations together do not fit into memory.

        Args:
            folders: Names of folders of the dataset, such as "000-023".

        Yields:
            Annotations by uid, one dictionary per folder, in the order of `folders`.

        Raises:
            UserError: A file cannot be downloaded or is damaged.
        """

        def read(path: Path) -> dict[str, Any]:
            # The package's load_annotations reads the paths of all objects again for every file.
            with gzip.open(path) as file:
                return json.load(file)

        names = [f"metadata/{folder}.json.gz" for folder in folders]
        with ThreadPoolExecutor(DOWNLOADS) as pool:
            try:
                bar = tqdm(pool.map(self._fetch, names), "annotations", len(names), unit=" files", delay=2)
                for path in bar:
                    yield self._read_valid(path, partial(read, path))
            finally:
                pool.shutdown(cancel_futures=True)

    def _read(self, name: str, read: Callable[[Any], Value]) -> Value:
        """Download the file `name` if it is missing and return its contents as `read` parses them with the package."""
        import objaverse  # imported late: the import takes 0.5 s and only this source needs it

        path = self._fetch(name)
        objaverse._VERSIONED_PATH = str(self.folder)  # the package has no public setting for this path
        return self._read_valid(path, lambda: read(objaverse))

    def _fetch(self, name: str) -> Path:
        path = self.folder / name
        try:
            if not path.is_file():
                download(f"{self.url}/{name}", path, self.transport)
        except RenderFailure as failure:
            raise UserError(
                f"objects.endpoint: the catalogue cannot be downloaded ({failure.detail}); check the network, name "
                "a mirror (HF_ENDPOINT sets it too), or render your own objects with objects=folder objects.path=…"
            ) from failure
        except OSError as error:
            raise UserError(f"objects.cache: {path} cannot be written ({error}); choose another folder") from error
        return path

    def _read_valid(self, path: Path, read: Callable[[], Value]) -> Value:
        try:
            found = read()
            if not isinstance(found, dict):
                raise ValueError(f"its JSON is a {type(found).__name__}, not an object")
            return found
        except (EOFError, OSError, RecursionError, ValueError, zlib.error) as error:
            raise UserError(f"{path}: damaged ({error}); delete it, and the next run downloads it again") from error


def note(annotation: Any) -> Note:
    """Return the fields of a Sketchfab annotation that filters and tables use.

    Args:
        annotation: Annotation of one object; any field may be missing or of another type.

    Returns:
        The fields, with the triangles and bytes of the GLB file.
    """
    annotation = _object(annotation)
    user, glb = _object(annotation.get("user")), _object(_object(annotation.get("archives")).get("glb"))
    return Note(
        license=_text(annotation.get("license")),
        author=_text(user.get("displayName") or user.get("username")),
        triangles=_number(glb.get("faceCount"), annotation.get("faceCount")),
        bytes=_number(glb.get("size")),
        likes=_number(annotation.get("likeCount")),
    )


def _object(value: Any) -> dict[str, Any]:
    """Return `value` if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    """Return `value` as an interned string, with each lone surrogate replaced by a question mark.

    JSON can hold a lone surrogate, but a UTF-8 file cannot.
    """
    return sys.intern(str(value or "").encode(errors="replace").decode())


def _number(*values: Any) -> int | None:
    """Return the first of `values` that is a number, as an integer, or None."""
    return next((int(value) for value in values if isinstance(value, int | float) and math.isfinite(value)), None)
