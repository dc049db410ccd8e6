"""Define the output folder of a reconstruction.

settings.json           the settings and inputs that decide the result; written first, and identifies the folder
input.png               the prepared picture
preview.png             renders of the fit, renewed while it runs
state.npz               sampled views, or with method=sjc the state of the optimisation, until the fit is done
field.npz               the fitted field; a command with other settings of the mesh starts from it
views/000.png …         the views that the field was fitted to, the input first
mesh.glb                the mesh, or mesh.obj with mesh.mtl and mesh.png, mesh.ply, mesh.stl
turntable.mp4           the mesh turning
report.html             a page that shows the result
reconstruction.json     settings, scores, seconds of each stage; written last
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from inference.reconstruction.fitted_field import FittedField
from inference.reconstruction.textured_surface import TexturedSurface
from inference.views.media import png, write_mp4
from pipeline.output import FolderLayout, json_object
from pipeline.storage import sweep, write_atomically

COMMAND = "inference.reconstruct"
FIELD, SETTINGS, RECORD = "field.npz", "settings.json", "reconstruction.json"
STATE, INPUT, PREVIEW, VIEWS, FILM, REPORT = (
    "state.npz",
    "input.png",
    "preview.png",
    "views",
    "turntable.mp4",
    "report.html",
)
MESHES = tuple(f"mesh.{suffix}" for suffix in ("glb", "obj", "mtl", "png", "ply", "stl"))
LAYOUT = FolderLayout(
    SETTINGS,
    lambda contents: json_object(contents).get("command") == COMMAND,
    r"settings\.json|input\.png|preview\.png|state\.npz|field\.npz|views|mesh\.(glb|obj|mtl|png|ply|stl)|turntable\.mp4|report\.html"
    r"|reconstruction\.json",
)


@dataclass(frozen=True)
class Result:
    """A finished reconstruction.

    Attributes:
        name: Path of the picture or the mesh, or the prompt.
        elevation: Of the input camera, degrees above the horizon.
        field: The fitted field.
        surface: The mesh, upright, its longest side 1.
        seconds: Duration of each stage, by name.
        truth: IoU and Chamfer distance to the true mesh, by name; empty without one.
    """

    name: str
    elevation: float
    field: FittedField
    surface: TexturedSurface
    seconds: dict[str, float]
    truth: dict[str, float]


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file, empty if it does not exist or holds none."""
    try:
        return json_object(path.read_bytes())
    except FileNotFoundError:
        return {}


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON object atomically."""
    write_atomically(str(path), (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def start_folder(folder: Path, settings: dict[str, Any]) -> None:
    """Write settings.json, and delete what earlier runs with other settings of the fit or the mesh wrote."""
    folder.mkdir(parents=True, exist_ok=True)
    for place in (folder, folder / VIEWS):
        sweep(str(place))
    (folder / RECORD).unlink(missing_ok=True)
    if not has_fit_settings(folder, settings):
        clear_folder(folder)
    folder.mkdir(exist_ok=True)
    for name in (*MESHES, FILM, REPORT):
        (folder / name).unlink(missing_ok=True)
    write_json(folder / SETTINGS, settings)


def has_fit_settings(folder: Path, settings: dict[str, Any]) -> bool:
    """Return whether a folder was begun with these settings of the fit."""
    begun: bool = read_json(folder / SETTINGS).get("fit_settings") == settings["fit_settings"]
    return begun


def is_fitted(folder: Path, settings: dict[str, Any]) -> bool:
    """Return whether a folder holds the field of these settings."""
    return has_fit_settings(folder, settings) and (folder / FIELD).exists()


def clear_folder(folder: Path) -> None:
    """Delete the files of a reconstruction, and the folders that are empty then."""
    for name in (RECORD, *MESHES, FILM, REPORT, FIELD, STATE, INPUT, PREVIEW, SETTINGS):
        (folder / name).unlink(missing_ok=True)
    for path in (folder / VIEWS).glob("[0-9][0-9][0-9].png"):
        path.unlink()
    for path in (folder / VIEWS, folder):
        with suppress(OSError):  # it holds other files, or does not exist
            path.rmdir()


def record(result: Result, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the contents of reconstruction.json."""
    check = asdict(result.surface.check)
    return {
        **settings,
        "name": result.name,
        "elevation_degrees": round(result.elevation, 3),
        "seconds": {stage: round(seconds, 2) for stage, seconds in result.seconds.items()},
        "fit": {name: round(value, 3) for name, value in result.field.scores.items()},
        "mesh": {**check, "agreement_db": round(result.surface.agreement_db, 3)},
        "truth": {name: round(value, 5) for name, value in result.truth.items()},
    }


def write_views(folder: Path, field: FittedField) -> None:
    """Write the views that a field was fitted to, and the input."""
    for number, pixels in enumerate(field.views.pictures):
        write_atomically(str(folder / VIEWS / f"{number:03d}.png"), png(pixels))
    write_atomically(str(folder / INPUT), png(field.views.pictures[0]))


def write_film(path: Path, frames: Sequence[Image.Image]) -> None:
    """Write a film aside, then rename it."""
    part = path.with_name(f".{path.name}")
    try:
        write_mp4(part, frames)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
