"""Read the layout of the original's released renders from a folder or a tar.

An object is a folder `<uid>/` with images `000.png …` and cameras `000.npy …`; `valid_paths.json` lists the uids used
for training.
"""

import json
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path, PurePosixPath

from conf.options import UserError
from pipeline.storage import open_file
from pipeline.uid import as_uid, is_uid, require_uid
from pipeline.zero123_release.archive import File, read_tar
from rendering.failure import Reason, RenderFailure

LISTING = "valid_paths.json"
VIEW = re.compile(r"\d{3}\.(png|npy)")
MAX_OBJECT_BYTES = 64 * 2**20  # per object; 12 uncompressed RGBA images of 1024² pixels fit


@dataclass(frozen=True)
class ReleasedObject:
    """Hold one object: its files by name, the folder to read them from, or the reason why it has no files."""

    uid: str
    files: dict[str, bytes] = field(default_factory=dict)
    folder: Path | None = None
    failure: tuple[Reason, str] | None = None


def read_listing(url: str) -> frozenset[str]:
    """Return the uids in a `valid_paths.json`.

    Raises:
        UserError: The file is missing or is not a list of uids.
    """
    try:
        with open_file(url) as file:
            uids = json.load(file)
    except OSError as error:
        raise UserError(f"valid={url}: cannot be read ({error}); give a {LISTING}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"valid={url}: not JSON ({error}); give a {LISTING}") from error
    if not isinstance(uids, list) or not uids:
        raise UserError(f"valid={url}: not a list of uids; give a {LISTING}")
    for uid in uids:
        require_uid(uid, f"valid={url}: uid")
    return frozenset(uids)


def objects_of_folder(root: Path, listed: Collection[str] | None) -> list[ReleasedObject]:
    """Return the objects in `root`, or only those in `listed`, sorted by uid.

    Raises:
        UserError: `root` contains no object folders.
    """
    uids = listed or [path.name for path in root.iterdir() if is_uid(path.name) and path.is_dir()]
    if not uids:
        raise no_objects(root)
    return [ReleasedObject(uid, folder=root / uid) for uid in sorted(uids)]


def no_objects(path: str | Path) -> UserError:
    """Return the error for a folder or tar without objects."""
    return UserError(f"path={path}: no folders <uid> with pictures 000.png … and cameras 000.npy …; give the renders")


def objects_of_tar(
    url: str, listed: Collection[str] | None, advance: Callable[[int], object]
) -> Iterator[ReleasedObject]:
    """Yield the objects of a tar, or only those in `listed`, in archive order.

    The files of an object must be contiguous. An object with files after another object is yielded a second time, as a
    failure.

    Raises:
        UserError: See `pipeline.zero123_release.archive.read_tar`.
    """
    seen: dict[str, bool] = {}  # uid -> whether its second occurrence was reported

    def wanted(path: PurePosixPath) -> bool:
        return bool(VIEW.fullmatch(path.name) and path.parent.name) and (not listed or path.parent.name in listed)

    for folder, files in groupby(read_tar(url, wanted, MAX_OBJECT_BYTES, advance), key=lambda file: file.path.parent):
        uid = as_uid(folder.name)
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
        if (size := size + len(file.contents)) > MAX_OBJECT_BYTES:
            return ReleasedObject(uid, failure=("too_large", f"the files have more than {MAX_OBJECT_BYTES:,} bytes"))
        contents[file.path.name] = file.contents
    return ReleasedObject(uid, contents)


def read_files(item: ReleasedObject) -> dict[str, bytes]:
    """Return the contents of an object's images and cameras by file name.

    Raises:
        RenderFailure: The files are missing, unreadable, too large or not plain.
    """
    if item.failure:
        raise RenderFailure(*item.failure)
    if item.folder is None:
        return item.files
    try:
        paths = [path for path in item.folder.iterdir() if VIEW.fullmatch(path.name)]
        if irregular := [path.name for path in paths if not path.is_file()]:
            raise RenderFailure("external", f"{irregular[0]} is not a regular file")
        if sum(path.stat().st_size for path in paths) > MAX_OBJECT_BYTES:
            raise RenderFailure("too_large", f"the files have more than {MAX_OBJECT_BYTES:,} bytes")
        return {path.name: path.read_bytes() for path in paths}
    except FileNotFoundError as error:
        raise RenderFailure("missing", f"no folder {item.uid}") from error
    except OSError as error:
        raise RenderFailure("unreadable", str(error)) from error
