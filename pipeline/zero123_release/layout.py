"""The layout of the original's released renders: where its objects lie, in a folder or in a tar.

An object is a folder `<uid>/` with pictures `000.png …` and cameras `000.npy …`; `valid_paths.json` lists the uids
that training takes.
"""

import json
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path, PurePosixPath

from conf.options import UserError
from pipeline.shards import UID
from pipeline.storage import open_file
from pipeline.zero123_release.archive import File, read_tar
from rendering.failure import Reason, RenderFailure

LISTING = "valid_paths.json"
VIEW = re.compile(r"\d{3}\.(png|npy)")
MOST_BYTES = 64 * 2**20  # of an object's files: twelve pictures of 1024² fit without any compression


@dataclass(frozen=True)
class ReleasedObject:
    """One object: its files by name, or the folder that they are still to be read from, or why it has none."""

    uid: str
    files: dict[str, bytes] = field(default_factory=dict)
    folder: Path | None = None
    failure: tuple[Reason, str] | None = None


def read_listing(url: str) -> frozenset[str]:
    """The uids in a `valid_paths.json`.

    Raises:
        UserError: it is missing, or no list of uids.
    """
    try:
        with open_file(url) as file:
            uids = json.load(file)
    except OSError as error:
        raise UserError(f"valid: {url} cannot be read ({error}); name a {LISTING}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"valid: {url} is no JSON ({error}); name a {LISTING}") from error
    if not isinstance(uids, list) or not uids:
        raise UserError(f"valid: {url} is no list of uids; name a {LISTING}")
    if strange := [uid for uid in uids if not (isinstance(uid, str) and UID.fullmatch(uid))]:
        raise UserError(f"valid: {url} lists {strange[0]!r:.300}, which is no uid: letters, digits, _ and - make one")
    return frozenset(uids)


def objects_of_folder(root: Path, listed: Collection[str] | None) -> list[ReleasedObject]:
    """The object folders in `root`, or the listed ones, by uid.

    Raises:
        UserError: there are none.
    """
    uids = listed or [path.name for path in root.iterdir() if UID.fullmatch(path.name) and path.is_dir()]
    if not uids:
        raise UserError(f"path: {root} holds no folders <uid> with pictures 000.png … and cameras 000.npy …")
    return [ReleasedObject(uid, folder=root / uid) for uid in sorted(uids)]


def objects_of_tar(
    url: str, listed: Collection[str] | None, advance: Callable[[int], object]
) -> Iterator[ReleasedObject]:
    """The objects of a tar in its order, or the listed ones.

    An object ends where another begins; should more of its files follow later, it comes once more, as a failure.

    Raises:
        UserError: see `pipeline.zero123_release.archive.read_tar`.
    """
    seen: dict[str, bool] = {}  # uid -> whether it came once more

    def wanted(path: PurePosixPath) -> bool:
        return bool(VIEW.fullmatch(path.name) and path.parent.name) and (not listed or path.parent.name in listed)

    for folder, files in groupby(read_tar(url, wanted, MOST_BYTES, advance), key=lambda file: file.path.parent):
        uid = re.sub(r"[^A-Za-z0-9_-]", "_", folder.name)[:200]
        if uid not in seen:
            seen[uid] = False
            yield (
                _gathered(uid, files)
                if uid == folder.name
                else ReleasedObject(uid, failure=("unreadable", f"its folder {folder.name!r:.300} is no uid"))
            )
        elif not seen[uid]:
            seen[uid] = True
            detail = "its files lie apart in the tar; those that came after another object's are not used"
            yield ReleasedObject(uid, failure=("incomplete", detail))
    for uid in sorted(set(listed or ()) - seen.keys()):
        yield ReleasedObject(uid, failure=("missing", f"it is in {LISTING}, but not in the tar"))


def _gathered(uid: str, files: Iterator[File]) -> ReleasedObject:
    contents: dict[str, bytes] = {}
    size = 0
    for file in files:
        if file.fault:
            return ReleasedObject(uid, failure=file.fault)
        if file.path.name in contents:
            return ReleasedObject(uid, failure=("incomplete", f"{file.path.name} comes twice"))
        if (size := size + len(file.contents)) > MOST_BYTES:
            return ReleasedObject(uid, failure=("too_large", f"its files have more than {MOST_BYTES:,} bytes"))
        contents[file.path.name] = file.contents
    return ReleasedObject(uid, contents)


def read_files(item: ReleasedObject) -> dict[str, bytes]:
    """The contents of an object's pictures and cameras by name.

    Raises:
        RenderFailure: it has none.
    """
    if item.failure:
        raise RenderFailure(*item.failure)
    if item.folder is None:
        return item.files
    try:
        paths = [path for path in item.folder.iterdir() if VIEW.fullmatch(path.name)]
        if strange := [path.name for path in paths if not path.is_file()]:
            raise RenderFailure("external", f"{strange[0]} is no plain file")
        if sum(path.stat().st_size for path in paths) > MOST_BYTES:
            raise RenderFailure("too_large", f"its files have more than {MOST_BYTES:,} bytes")
        return {path.name: path.read_bytes() for path in paths}
    except FileNotFoundError as error:
        raise RenderFailure("missing", f"there is no folder {item.uid}") from error
    except OSError as error:
        raise RenderFailure("unreadable", str(error)) from error
