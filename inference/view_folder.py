"""One picture's views as a folder: every command that draws ends here.

input.png               what the model was shown
000.png 001.png …       a view for each pose; 000-1.png … are further guesses
views.png               all of them with their poses, and where the guesses differ
views.mp4 views.gif     one after the other, where there are several poses
poses.json              the poses, the cameras where the input's elevation is known, all settings; written last.
                        The files that it names are the ones that the next run replaces
"""

import functools
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from conf.options import UserError
from inference.config import Sampler, Sampling, ViewsConfig
from inference.elevation.estimate import estimate_elevation
from inference.media import contact_sheet, variance, variance_picture, write_gif, write_mp4
from inference.novel_view import NovelView, to_image
from inference.poses import Turn, camera_elevation, cameras_after, pose_vectors
from pipeline.output import not_own
from pipeline.storage import normalised

Config = TypeVar("Config", bound=ViewsConfig)
OURS = re.compile(r"\d{3,4}(-\d+)?\.png|input\.png|views\.(png|mp4|gif)|poses\.json")
ASIDE, REPLACED = ".views.part", "replaced.json"  # within the folder, which may be a volume of its own
PLACES = ("cutout", "text_to_image")  # options that can name a file or a folder
QUICK = Sampling(steps=15, sampler=Sampler.dpm_solver)  # for views that only an estimate looks at


@dataclass(frozen=True)
class ViewSet:
    """What was drawn for one picture: `views[pose][guess]`, and the elevation of its camera where that is known."""

    picture: Image.Image
    views: list[list[Image.Image]]
    elevation_degrees: float | None
    uncertainty_degrees: float | None


def sample_views(photograph: Image.Image, turns: Sequence[Turn], config: ViewsConfig, novel_view: NovelView) -> ViewSet:
    """From a photograph to its views; guess k is the one of seed + k.

    Raises:
        UserError: no object is found in it, or the checkpoint needs to know an elevation that is not given.
    """
    model, elevation, uncertainty = novel_view.model, given_elevation(config.elevation), None
    prepared = novel_view.prepare(photograph, config.cutout, config.fill)
    vectors = pose_vectors(turns, model.cc_projection.pose_vector, elevation).repeat(config.samples, axis=0)
    seeds = [config.sampling.seed + guess for guess in range(config.samples)] * len(turns)
    seen = novel_view.encode(prepared)
    if config.elevation == "estimate":
        try:
            estimate = estimate_elevation(lambda poses: novel_view(seen, poses, QUICK, bar="elevation"), prepared.image)
            elevation, uncertainty = estimate.degrees, estimate.uncertainty_degrees
            tqdm.write(f"elevation: {elevation:.0f}° ± {uncertainty:.0f}° above the horizon, estimated")
        except UserError as unknown:
            warn_unknown_elevation(str(unknown))
    views = [to_image(view) for view in novel_view.sample(seen, vectors, config.sampling, seeds)]
    guesses = [views[i : i + config.samples] for i in range(0, len(views), config.samples)]
    return ViewSet(prepared.image, guesses, elevation, uncertainty)


@functools.cache
def warn_unknown_elevation(reason: str) -> None:
    """Once, however many pictures of a folder it holds for."""
    tqdm.write(f"elevation: unknown; {reason}", sys.stderr)


def with_cameras_elevation(config: Config) -> Config:
    """Take the elevation of the input from `cameras`, where they are given and it would be estimated otherwise.

    Raises:
        UserError: the file of cameras cannot be read.
    """
    if not config.cameras or config.elevation != "estimate":
        return config
    return replace(config, elevation=str(round(camera_elevation(config.cameras, config.input_camera), 9)))


def given_elevation(elevation: str) -> float | None:
    """Degrees above the horizon, or nothing where it is to be estimated or left open."""
    if elevation in ("estimate", "none"):
        return None
    try:
        degrees = float(elevation)
    except ValueError:
        degrees = math.nan
    if not -90 <= degrees <= 90:
        raise UserError(f"elevation={elevation} is none of estimate, none, and -90..90 degrees above the horizon")
    return degrees


def file_names(views: int, samples: int) -> set[str]:
    """Return the names that `write_views` creates for so many poses and guesses of each."""
    files = {_name(pose, guess) for pose in range(views) for guess in range(samples)}
    return files | {"input.png", "views.png", "poses.json"} | ({"views.mp4", "views.gif"} if views > 1 else set())


def own_files(folder: Path) -> set[str]:
    """Return the names of the files that earlier runs wrote into `folder`, as its poses.json says.

    A run that was killed while it replaced files has left its poses.json and the one before in `.views.part`.
    """
    names: set[str] = set()
    for record in (folder / "poses.json", *(folder / ASIDE).glob("*.json")):
        try:
            names |= {*_listed(json.loads(record.read_text())), "poses.json"}
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            continue  # missing, or not a record of views
    return names


def _listed(record: dict[str, Any]) -> set[str]:
    """Return the names of the files that a poses.json names, itself excepted."""
    record["sha256"], record["weights"]  # which a poses.json of others lacks
    files = {file for view in record["views"] for file in view["files"]} | {"input.png", "views.png"}
    files |= {"views.mp4", "views.gif"} if len(record["views"]) > 1 else set()
    return {name for name in files if OURS.fullmatch(name)}


def require_own_views(folder: Path, names: set[str]) -> None:
    """Refuse a folder in which files of others have the `names` that are to be written.

    Raises:
        UserError: no poses.json of an earlier run names one of them.
    """
    there = {name for name in names if os.path.lexists(folder / name)}
    if foreign := there - own_files(folder):
        raise not_own(folder, foreign)


def write_views(folder: Path, drawn: ViewSet, turns: Sequence[Turn], about: dict[str, Any]) -> None:
    """Write the views into `folder`; `about` goes into poses.json, which comes last.

    Files that an earlier run wrote there are deleted, other files stay.

    Raises:
        UserError: other files have names that are to be written.
    """
    require_own_views(folder, file_names(len(turns), len(drawn.views[0])))
    folder.mkdir(parents=True, exist_ok=True)
    aside = _clear(folder)
    names = [[_name(pose, guess) for guess in range(len(views))] for pose, views in enumerate(drawn.views)]
    for files, views in zip(names, drawn.views, strict=True):
        for file, view in zip(files, views, strict=True):
            view.save(aside / file)
    drawn.picture.save(aside / "input.png")
    spread = [variance(np.stack([np.asarray(view) for view in views])) for views in drawn.views]
    sheet(drawn, turns, spread).save(aside / "views.png")
    if len(turns) > 1:
        frames = [views[0] for views in drawn.views]
        write_mp4(aside / "views.mp4", frames)
        write_gif(aside / "views.gif", frames)
    degrees = drawn.elevation_degrees
    cameras = [None] * len(turns) if degrees is None else cameras_after(turns, degrees).round(9).tolist()
    poses = [
        {"files": files, "pose": turn, "camera": camera} | ({"variance": float(field.mean())} if len(files) > 1 else {})
        for files, turn, camera, field in zip(names, turns, cameras, spread, strict=True)
    ]
    elevation = {"degrees": degrees, "uncertainty_degrees": drawn.uncertainty_degrees}
    (aside / "poses.json").write_text(json.dumps({**about, "elevation": elevation, "views": poses}, indent=1) + "\n")
    _replace(folder, aside)


def is_written(folder: Path, about: dict[str, Any]) -> bool:
    """Whether the folder holds these views already."""
    try:
        written = json.loads((folder / "poses.json").read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    if not isinstance(written, dict) or not isinstance(written.get("settings"), dict):
        return False
    before, now = {key: written.get(key) for key in about}, json.loads(json.dumps(about))
    if _deciding(before) != _deciding(now):
        return False
    files = [file for view in written["views"] for file in view["files"]]
    return all((folder / file).exists() for file in ["input.png", "views.png", *files])


def _deciding(about: dict[str, Any]) -> dict[str, Any]:
    """Return the entries of poses.json that decide the pictures.

    `sha256`, `weights` and `poses` identify the image, the checkpoint and the cameras, wherever their files lie; other
    folders and files are compared in one spelling.
    """
    settings = {
        name: normalised(value) if name in PLACES and isinstance(value, str) else value
        for name, value in about["settings"].items()
        if name not in ("checkpoint", "cameras")
    }
    return {name: value for name, value in about.items() if name != "image"} | {"settings": _with_new_names(settings)}


def _with_new_names(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a poses.json with the present names of options that earlier versions named otherwise."""
    sampling = settings.get("sampling")
    if not isinstance(sampling, dict) or "null" not in sampling:
        return settings
    renamed = {"unconditional" if name == "null" else name: value for name, value in sampling.items()}
    return settings | {"sampling": renamed}


def sheet(drawn: ViewSet, turns: Sequence[Turn], spread: Sequence[NDArray[np.float64]]) -> Image.Image:
    """The input and a view for each pose; with several guesses, a row for each pose that ends with where they differ,
    all on one scale."""
    labels = [f"{polar:+g}° {azimuth:+g}° {radius:+g}" for polar, azimuth, radius in np.round(turns, 2).tolist()]
    if len(drawn.views[0]) == 1:
        return contact_sheet([drawn.picture, *(views[0] for views in drawn.views)], ["input", *labels])
    most = max(float(field.max()) for field in spread)
    pictures, below = list[Image.Image](), list[str]()
    for label, views, field in zip(labels, drawn.views, spread, strict=True):
        pictures += [drawn.picture, *views, variance_picture(field, most)]
        below += ["input", *(f"{label}  #{guess}" for guess in range(len(views))), f"variance, to {most:.2g}"]
    return contact_sheet(pictures, below, columns=len(drawn.views[0]) + 2)


def _name(pose: int, guess: int) -> str:
    return f"{pose:03d}-{guess}.png" if guess else f"{pose:03d}.png"


def _clear(folder: Path) -> Path:
    """Remove what a killed run left in `folder` half replaced; return the empty folder for files not yet in place."""
    aside = folder / ASIDE
    if aside.exists():
        if not (folder / "poses.json").exists():
            _delete(folder, own_files(folder))
        shutil.rmtree(aside)
    aside.mkdir()
    return aside


def _replace(folder: Path, aside: Path) -> None:
    """Move the files of `aside` to `folder`, poses.json last, in place of the files that the one before names.

    At each moment the records in `folder` and `aside` name all files of this command, for `own_files`.
    """
    before, new = own_files(folder), {path.name for path in aside.iterdir()}
    if (folder / "poses.json").exists():
        (folder / "poses.json").replace(aside / REPLACED)
    _delete(folder, before - new)
    for name in sorted(new - {"poses.json"}):
        (aside / name).replace(folder / name)
    (aside / REPLACED).unlink(missing_ok=True)
    (aside / "poses.json").replace(folder / "poses.json")
    aside.rmdir()


def _delete(folder: Path, names: set[str]) -> None:
    for name in names:
        (folder / name).unlink(missing_ok=True)
