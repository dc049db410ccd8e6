"""Sample the views of one picture and write them as a folder.

input.png               the prepared picture
000.png 001.png …       a view for each pose; 000-1.png … are further samples of it
views.png               contact sheet of all views with their poses, and the variance of the samples
views.mp4 views.gif     the views as an animation, if there are several poses
poses.json              the poses, the cameras if the input's elevation is known, and all settings; written last.
                        The next run replaces the files that it names
"""

import functools
import json
import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from conf.options import UserError
from inference.config import Sampler, Sampling, ViewsConfig
from inference.elevation.estimate import estimate_elevation
from inference.novel_view import NovelView, to_image
from inference.poses import DEFAULT_POSITION, InputPosition, Turn, cameras_after, given_elevation, pose_vectors
from inference.views.media import contact_sheet, variance, variance_picture, write_gif, write_mp4
from pipeline.output import not_own
from pipeline.storage import normalised

VIEW_FILES = re.compile(r"\d{3,4}(-\d+)?\.png|input\.png|views\.(png|mp4|gif)|poses\.json")
STAGING = ".views.part"  # in the folder, so that files are renamed within one volume
REPLACED = "replaced.json"  # in STAGING: the poses.json that is being replaced
PATH_OPTIONS = ("cutout", "text_to_image")  # options that can name a file or a folder
ELEVATION_SAMPLING = Sampling(steps=15, sampler=Sampler.dpm_solver)  # for views that only the estimate uses


@dataclass(frozen=True)
class ViewSet:
    """The views of one picture.

    Attributes:
        picture: The prepared picture.
        views: `views[pose][sample]`.
        elevation_degrees: Elevation of the picture's camera above the horizon; None if unknown.
        uncertainty_degrees: Standard deviation of the elevation; None unless it was estimated.
    """

    picture: Image.Image
    views: list[list[Image.Image]]
    elevation_degrees: float | None
    uncertainty_degrees: float | None


def sample_views(photograph: Image.Image, turns: Sequence[Turn], config: ViewsConfig, novel_view: NovelView) -> ViewSet:
    """Prepare a photograph and sample its views; sample k of a view has the seed `config.sampling.seed + k`.

    Raises:
        UserError: No object is found in it, or the checkpoint needs an elevation that is not given.
    """
    model, elevation, uncertainty = novel_view.model, given_elevation(config.elevation), None
    prepared = novel_view.prepare(photograph, config.cutout, config.fill)
    vectors = pose_vectors(turns, model.cc_projection.pose_vector, elevation).repeat(config.samples, axis=0)
    seeds = [config.sampling.seed + sample for sample in range(config.samples)] * len(turns)
    encoded = novel_view.encode(prepared)
    if config.elevation == "estimate":
        try:
            estimate = estimate_elevation(
                lambda poses: novel_view(encoded, poses, ELEVATION_SAMPLING, bar="elevation"), prepared.image
            )
            elevation, uncertainty = estimate.degrees, estimate.uncertainty_degrees
            tqdm.write(f"elevation: {elevation:.0f}° ± {uncertainty:.0f}° above the horizon, estimated")
        except UserError as error:
            warn_unknown_elevation(str(error))
    views = [to_image(view) for view in novel_view.sample(encoded, vectors, config.sampling, seeds)]
    by_pose = [views[i : i + config.samples] for i in range(0, len(views), config.samples)]
    return ViewSet(prepared.image, by_pose, elevation, uncertainty)


@functools.cache
def warn_unknown_elevation(reason: str) -> None:
    """Print a warning, once for each reason."""
    tqdm.write(f"elevation: unknown; {reason}", sys.stderr)


def file_names(views: int, samples: int) -> set[str]:
    """Return the names that `write_views` creates for `views` poses with `samples` each."""
    files = {_name(pose, sample) for pose in range(views) for sample in range(samples)}
    return files | {"input.png", "views.png", "poses.json"} | ({"views.mp4", "views.gif"} if views > 1 else set())


def own_files(folder: Path) -> set[str]:
    """Return the names of the files that earlier runs wrote into `folder`, according to its poses.json.

    A run that was killed while it replaced files has left its poses.json and the previous one in `.views.part`.
    """
    names: set[str] = set()
    for record in (folder / "poses.json", *(folder / STAGING).glob("*.json")):
        try:
            names |= {*_listed(json.loads(record.read_text())), "poses.json"}
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            continue  # missing, or not a record of views
    return names


def _listed(record: dict[str, Any]) -> set[str]:
    """Return the names of the files that a poses.json names, without its own.

    Raises:
        LookupError: It is a poses.json of another program.
    """
    record["sha256"], record["weights"]
    files = {file for view in record["views"] for file in view["files"]} | {"input.png", "views.png"}
    files |= {"views.mp4", "views.gif"} if len(record["views"]) > 1 else set()
    return {name for name in files if VIEW_FILES.fullmatch(name)}


def require_own_views(folder: Path, names: set[str]) -> None:
    """Check that no file with one of `names` would be replaced that this command did not write.

    Raises:
        UserError: A file exists that no poses.json of an earlier run names.
    """
    existing = {name for name in names if os.path.lexists(folder / name)}
    if foreign := existing - own_files(folder):
        raise not_own(folder, foreign)


def write_views(
    folder: Path,
    view_set: ViewSet,
    turns: Sequence[Turn],
    about: dict[str, Any],
    position: InputPosition = DEFAULT_POSITION,
) -> None:
    """Write views into `folder`, in place of the files that an earlier run wrote there; other files stay.

    Args:
        folder: The output; made if missing.
        view_set: The views of one picture.
        turns: The turn of each pose.
        about: Entries of poses.json beside the views and the elevation.
        position: Position of the input camera.

    Raises:
        UserError: A file exists that would be replaced and was not written by this command.
    """
    require_own_views(folder, file_names(len(turns), len(view_set.views[0])))
    folder.mkdir(parents=True, exist_ok=True)
    staging = _empty_staging(folder)
    names = [[_name(pose, sample) for sample in range(len(views))] for pose, views in enumerate(view_set.views)]
    for files, views in zip(names, view_set.views, strict=True):
        for file, view in zip(files, views, strict=True):
            view.save(staging / file)
    view_set.picture.save(staging / "input.png")
    variances = [variance(np.stack([np.asarray(view) for view in views])) for views in view_set.views]
    sheet(view_set, turns, variances).save(staging / "views.png")
    if len(turns) > 1:
        frames = [views[0] for views in view_set.views]
        write_mp4(staging / "views.mp4", frames)
        write_gif(staging / "views.gif", frames)
    degrees = view_set.elevation_degrees
    cameras = [None] * len(turns)
    if degrees is not None:
        cameras = cameras_after(turns, degrees, position.radius, position.azimuth_degrees).round(9).tolist()
    poses = [
        {"files": files, "pose": turn, "camera": camera} | ({"variance": float(field.mean())} if len(files) > 1 else {})
        for files, turn, camera, field in zip(names, turns, cameras, variances, strict=True)
    ]
    elevation = {"degrees": degrees, "uncertainty_degrees": view_set.uncertainty_degrees}
    (staging / "poses.json").write_text(json.dumps({**about, "elevation": elevation, "views": poses}, indent=1) + "\n")
    _replace(folder, staging)


def is_written(folder: Path, about: dict[str, Any]) -> bool:
    """Return whether the folder already holds the views that `about` describes."""
    try:
        written = json.loads((folder / "poses.json").read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    if not isinstance(written, dict) or not isinstance(written.get("settings"), dict):
        return False
    before, now = {key: written.get(key) for key in about}, json.loads(json.dumps(about))
    if _deciding(before) != _deciding(now):
        return False
    return all((folder / file).exists() for file in _listed(written))


def _deciding(about: dict[str, Any]) -> dict[str, Any]:
    """Return the entries of poses.json on which the pictures depend.

    `sha256`, `weights` and `poses` stand for the files of the image, the checkpoint and the cameras, which may move.
    Other paths are normalised.
    """
    settings = {
        name: normalised(value) if name in PATH_OPTIONS and isinstance(value, str) else value
        for name, value in about["settings"].items()
        if name not in ("checkpoint", "cameras")
    }
    return {name: value for name, value in about.items() if name != "image"} | {"settings": _with_new_names(settings)}


def _with_new_names(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a poses.json, with options of `sampling` that had another name under their present one."""
    sampling = settings.get("sampling")
    if not isinstance(sampling, dict):
        return settings
    names = {field.metadata["formerly"]: field.name for field in fields(Sampling)}
    return settings | {"sampling": {names.get(name, name): value for name, value in sampling.items()}}


def sheet(view_set: ViewSet, turns: Sequence[Turn], variances: Sequence[NDArray[np.float64]]) -> Image.Image:
    """Return a contact sheet of the input and a view for each pose.

    With several samples, each pose has a row: the input, the samples and their variance, on one scale for all rows.
    """
    labels = [f"{polar:+g}° {azimuth:+g}° {radius:+g}" for polar, azimuth, radius in np.round(turns, 2).tolist()]
    if len(view_set.views[0]) == 1:
        return contact_sheet([view_set.picture, *(views[0] for views in view_set.views)], ["input", *labels])
    highest = max(float(values.max()) for values in variances)
    pictures, captions = list[Image.Image](), list[str]()
    for label, views, values in zip(labels, view_set.views, variances, strict=True):
        pictures += [view_set.picture, *views, variance_picture(values, highest)]
        captions += ["input", *(f"{label}  #{sample}" for sample in range(len(views))), f"variance, to {highest:.2g}"]
    return contact_sheet(pictures, captions, columns=len(view_set.views[0]) + 2)


def _name(pose: int, sample: int) -> str:
    return f"{pose:03d}-{sample}.png" if sample else f"{pose:03d}.png"


def _empty_staging(folder: Path) -> Path:
    """Remove the files of a run that was killed while it replaced files; return the empty folder for new files."""
    staging = folder / STAGING
    if staging.exists():
        if not (folder / "poses.json").exists():
            _delete(folder, own_files(folder))
        shutil.rmtree(staging)
    staging.mkdir()
    return staging


def _replace(folder: Path, staging: Path) -> None:
    """Move the files of `staging` to `folder`, poses.json last, and delete the files that the previous one names.

    At each moment the records in `folder` and `staging` name all files of this command, for `own_files`.
    """
    previous, new = own_files(folder), {path.name for path in staging.iterdir()}
    if (folder / "poses.json").exists():
        (folder / "poses.json").replace(staging / REPLACED)
    _delete(folder, previous - new)
    for name in sorted(new - {"poses.json"}):
        (staging / name).replace(folder / name)
    (staging / REPLACED).unlink(missing_ok=True)
    (staging / "poses.json").replace(folder / "poses.json")
    staging.rmdir()


def _delete(folder: Path, names: set[str]) -> None:
    for name in names:
        (folder / name).unlink(missing_ok=True)
