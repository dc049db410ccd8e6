"""Read views from folders of PNG pictures: the original's layout with cameras, and SyncDreamer's without."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from conf.options import UserError, first_line
from inference.evaluation.benchmarks.benchmark import Benchmark
from inference.evaluation.benchmarks.camera_check import known_cameras
from inference.evaluation.benchmarks.views import DamagedViews, ObjectViews, require_view
from pipeline.samples import npy_array
from pipeline.uid import is_uid
from pipeline.zero123_release.release_layout import VIEW, ReleasedObject, read_files
from rendering.cameras import Array
from rendering.failure import RenderFailure

# Folders below an object's that hold its views: the original's, EscherNet's, and those of the original's data classes.
BELOW = ("", "model", "render_mvs_25/model", "render_mvs/model")
FIRST = "000.png"


def find_pictures(root: Path) -> dict[str, Path]:
    """Return the folder with the pictures of each object below `root`, by uid; raises as `object_folders`."""
    return object_folders(root, [str(Path(below, FIRST)) for below in BELOW])


def object_folders(root: Path, first_files: Sequence[str]) -> dict[str, Path]:
    """Return the folder with the views of each object below `root`, by uid, in the order of their names.

    Args:
        root: Folder with a folder for each object.
        first_files: Paths below an object's folder, one of which exists if it has views.

    Raises:
        UserError: The name of such a folder cannot be a uid.
    """
    found = {}
    for path in sorted(path for path in root.iterdir() if not path.name.startswith(".") and path.is_dir()):
        files = [path / file for file in first_files if (path / file).is_file()]
        if files and not is_uid(path.name):
            raise UserError(f"views={root}: the folder {path.name!r} is no uid; rename it to A-Z, a-z, 0-9, _ and -")
        if files:
            found[path.name] = files[0].parent
    return found


def object_files(folder: Path) -> list[Path]:
    """Return the pictures and cameras in the folder of an object, in order."""
    return sorted(path for path in folder.iterdir() if VIEW.fullmatch(path.name))


def read_pictures(root: str, uid: str, folder: Path, benchmarks: Sequence[Benchmark]) -> ObjectViews:
    """Return the views of an object from its folder.

    Args:
        root: Folder of all objects, for messages.
        uid: The object.
        folder: Folder of its pictures.
        benchmarks: Benchmarks, one of which gives the cameras if the folder has none.

    Raises:
        DamagedViews: A file is missing, unreadable or not as the layout has it.
        UserError: The folder has no cameras, and no benchmark gives any.
    """
    try:
        files = read_files(ReleasedObject(uid, folder=folder))
    except RenderFailure as failure:
        raise DamagedViews(root, uid, failure.detail) from None
    names = sorted(name for name in files if name.endswith(".png"))
    if names != [f"{i:03d}.png" for i in range(len(names))]:
        raise DamagedViews(root, uid, f"{len(names)} pictures are not numbered from {FIRST} on")
    for name in names:
        _require_picture(root, uid, name, files[name])
    cameras = [_camera(root, uid, name, files[name]) for name in sorted(files) if name.endswith(".npy")]
    if cameras and sorted(files) != sorted(f"{i:03d}.{kind}" for i in range(len(names)) for kind in ("png", "npy")):
        raise DamagedViews(root, uid, f"{len(names)} pictures and {len(cameras)} cameras; give one for each, from 000")
    known = np.stack(cameras) if cameras else _cameras_of(root, uid, len(names), benchmarks)
    return ObjectViews(uid, tuple(files[name] for name in names), known)


def _cameras_of(root: str, uid: str, views: int, benchmarks: Sequence[Benchmark]) -> Array:
    """Return the cameras `[V, 3, 4]` that a benchmark gives to pictures without any."""
    all_known = [known for benchmark in benchmarks if (known := known_cameras(benchmark)) is not None]
    if not all_known:
        names = ", ".join(benchmark.name for benchmark in benchmarks)
        raise UserError(f"views={root}: {uid} has pictures without cameras, and benchmark={names} gives none; add .npy")
    for known in all_known:
        if len(known) == views:
            return known
    raise DamagedViews(root, uid, f"{views} pictures without cameras, the benchmark has {len(all_known[0])}")


def _require_picture(root: str, uid: str, name: str, contents: bytes) -> None:
    """Raise `DamagedViews` unless the header is that of a square picture; `read_objects` decodes those of pairs."""
    try:
        with Image.open(io.BytesIO(contents), formats=["PNG"]) as image:
            require_view(image)
    except UnidentifiedImageError:
        raise DamagedViews(root, uid, f"{name} is not a PNG file") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DamagedViews(root, uid, f"{name}: {first_line(error)}") from None


def _camera(root: str, uid: str, name: str, contents: bytes) -> Array:
    try:
        camera = npy_array(contents)
    except ValueError as error:
        raise DamagedViews(root, uid, f"{name}: {first_line(error)}") from None
    if camera.shape not in ((3, 4), (4, 4)) or camera.dtype.kind != "f":
        raise DamagedViews(root, uid, f"{name}: {camera.dtype} {list(camera.shape)}, not floats [3, 4]")
    return camera[:3].astype(np.float64)
