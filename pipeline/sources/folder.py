"""Source of objects in a local folder of any depth."""

import csv
import hashlib
import os
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import ClassVar

from conf.options import UserError, option
from pipeline.sources.source import Asset
from pipeline.sources.uid_list import UIDS_HELP, among_listed
from pipeline.uid import as_uid, is_uid
from rendering.blender_process import BlenderProcess
from rendering.failure import RenderFailure
from rendering.formats import SUFFIXES

OBJECTS_CSV = "objects.csv"
SYSTEM_FOLDERS = ("__MACOSX", "$RECYCLE.BIN")  # not searched; names with a leading dot are skipped as well


@dataclass(frozen=True)
class FolderObjects:
    """Source of all files below `path` in a format that Blender reads, or of the files that `objects.csv` lists.

    The table `objects.csv` has the columns uid and path, and optionally license and author. Without it, linked folders
    are searched too, and hidden files and folders are skipped.
    """

    downloads: ClassVar[bool] = False
    _root: ClassVar[Path]  # of an instance: `path` as an absolute one; a ClassVar is not an option
    path: str = option("???", "folder of GLB, GLTF, OBJ, FBX, PLY, STL, DAE or USD files, searched recursively")
    limit: int | None = option(None, "maximum number of objects, the first in order; null: all")
    include: list[str] = option([], "patterns of the paths to take, e.g. ['chairs/*']; []: all")
    exclude: list[str] = option([], "patterns of the paths to skip")
    uids: str | None = option(None, UIDS_HELP)

    def __post_init__(self) -> None:
        # `fetch` and `folder` run in tasks, which have another working folder on a cluster.
        object.__setattr__(self, "_root", Path(self.path).absolute())

    def find(self) -> list[Asset]:
        """Return the objects of the folder: in the order of `objects.csv`, or sorted by path without one.

        Raises:
            UserError: The folder is missing or has no objects, no object matches the patterns, `objects.csv` is
                invalid, or `limit` is below 1.
        """
        root = Path(self.path)
        if self.limit is not None and self.limit < 1:
            raise UserError(f"objects.limit={self.limit}: must be at least 1")
        if not root.is_dir():
            raise UserError(f"objects.path={self.path}: no such folder; give the folder of the objects")
        assets = _listed(root / OBJECTS_CSV) if (root / OBJECTS_CSV).is_file() else _walked(root)
        if not assets:
            raise UserError(f"objects.path={self.path}: no file ends in {', '.join(SUFFIXES)}; choose another folder")
        if not (matching := [asset for asset in assets if self._matches(asset.origin)]):
            patterns = f"objects.include={self.include} objects.exclude={self.exclude}"
            raise UserError(f"{patterns}: excludes all {len(assets)} objects of {self.path}; change the patterns")
        return among_listed(matching, self.uids)[: self.limit]

    def _matches(self, path: str) -> bool:
        included = not self.include or any(fnmatchcase(path, pattern) for pattern in self.include)
        return included and not any(fnmatchcase(path, pattern) for pattern in self.exclude)

    def folder(self) -> Path:
        """Return the absolute path of the folder, which Blender reads directly."""
        return self._root

    def fetch(self, asset: Asset, folder: Path, renderer: BlenderProcess) -> Path:
        """Return the path of the object's file in the source folder.

        Raises:
            RenderFailure: The path is not UTF-8 (`unreadable`), or lies outside the source folder (`missing`).
        """
        if asset.fault:
            raise RenderFailure("unreadable", asset.fault)
        # Links are followed: a user who places a link in the folder means its target.
        if Path(asset.origin).is_absolute() or ".." in Path(asset.origin).parts:
            raise RenderFailure("missing", f"{asset.origin} is outside {self.path}")
        return self.folder() / asset.origin


def _walked(root: Path) -> list[Asset]:
    paths = _files(root)
    assets = []
    for path, uid in zip(paths, _uids(paths), strict=True):
        origin = _bytes(path).decode(errors="backslashreplace")
        fault = "" if origin == path.as_posix() else "its path is not UTF-8; rename the file or folder"
        assets.append(Asset(uid, origin, fault=fault))
    return assets


def _files(root: Path) -> list[Path]:
    """Return the paths, relative to `root` and sorted, of all files in a supported format below it.

    Linked folders are searched after all others. No folder is searched twice, so neither a cycle of links nor two
    links to one folder repeat a file. A link to a folder that contains `root` is not followed. A link to a missing
    file is listed, so that the object is recorded as missing.
    """
    found: list[Path] = []
    searched: set[str] = set()
    starts = [root]
    for start in starts:  # the loop appends the linked folders that it finds
        for folder, names, files in os.walk(start, onerror=_report_unreadable):
            names[:] = sorted(name for name in names if not name.startswith(".") and name not in SYSTEM_FOLDERS)
            if (real := os.path.realpath(folder)) in searched:
                names.clear()
                continue
            searched.add(real)
            parent = Path(folder)
            starts += [parent / name for name in names if _is_followed(parent / name, root)]
            paths = (parent / name for name in files if not name.startswith("."))
            found += [path for path in paths if path.suffix.lower() in SUFFIXES and _is_file(path)]
    return sorted(path.relative_to(root) for path in found)


def _is_followed(folder: Path, root: Path) -> bool:
    if not folder.is_symlink():
        return False  # os.walk already enters plain folders
    if root.resolve().is_relative_to(folder.resolve()):
        print(f"objects.path: skipped the link {str(folder)!r}, whose target contains it", file=sys.stderr)
        return False
    return True


def _is_file(path: Path) -> bool:
    """Return whether `path` is a regular file or a broken link."""
    return os.path.isfile(path) or not os.path.exists(path)


def _report_unreadable(error: OSError) -> None:
    print(f"objects.path: skipped {error.filename!r}: {error.strerror}", file=sys.stderr)


def _uids(paths: list[Path]) -> list[str]:
    """Return a uid for each path: its folders and stem joined by dashes.

    Paths that differ only in the suffix get the suffix appended. Paths that still share a uid, such as `a/b.glb` and
    `a-b.glb`, get a hash.
    """
    stems = ["-".join(path.with_suffix("").parts) for path in paths]
    uids = [_uid(stem, _bytes(path)) for stem, path in zip(stems, paths, strict=True)]
    forms: tuple[Callable[[str, Path], str], ...] = (
        lambda stem, path: _uid(f"{stem}_{path.suffix[1:]}", _bytes(path)),
        lambda stem, path: _hashed(stem, _bytes(path)),
    )
    for form in forms:
        shared = Counter(uids)
        uids = [
            form(stem, path) if shared[uid] > 1 else uid for uid, stem, path in zip(uids, stems, paths, strict=True)
        ]
    if clashes := [uid for uid, count in Counter(uids).items() if count > 1]:
        raise UserError(f"objects.path: two files have the uid {clashes[0]}; rename one, or list them in {OBJECTS_CSV}")
    return uids


def _listed(table: Path) -> list[Asset]:
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{table}: not a CSV file in UTF-8 ({error}); save it as one") from error
    if not rows:
        raise UserError(f"{table}: lists no objects; add them, or delete the file to take all of the folder")
    if not {"uid", "path"} <= set(rows[0]):
        raise UserError(f"{table}: the columns uid and path are required; add them")
    for number, row in enumerate(rows, start=2):
        if not (row["uid"] and row["path"]):
            raise UserError(f"{table}, line {number}: uid or path is empty; fill it in")
    assets = [
        Asset(_uid(row["uid"], row["uid"].encode()), row["path"], row.get("license") or "", row.get("author") or "")
        for row in rows
    ]
    if clashes := [uid for uid, count in Counter(asset.uid for asset in assets).items() if count > 1]:
        raise UserError(f"{table}: uid {clashes[0]} occurs twice; rename one")
    return assets


def _uid(name: str, source: bytes) -> str:
    """Return `name` if it can be the key of a shard, else its valid characters and a hash of `source`.

    The uid of an object determines its cameras and its split, so it depends on the object's own path only.
    """
    return name if is_uid(name) else _hashed(name, source)


def _hashed(name: str, source: bytes) -> str:
    return f"{as_uid(name, 180)}-{hashlib.sha256(source).hexdigest()[:12]}"


def _bytes(path: Path) -> bytes:
    """Return a relative path as the file system holds it, with slashes."""
    return path.as_posix().encode(errors="surrogateescape")
