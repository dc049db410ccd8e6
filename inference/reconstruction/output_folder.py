"""Define the output folder of a reconstruction.

settings.json           identifies the folder, written first; then the settings of field.npz
input.png               the prepared picture
preview.png             renders of the fit, renewed while it runs
state-<hash>.npz        sampled views, or with method=sjc the state of the optimisation, until a fit is done; <hash> is
                        that of the fit's settings
field.npz               the fitted field; a command with other settings of the mesh starts from it
views/000.png …         the views that the field was fitted to, the input first
mesh.glb                the mesh, or mesh.obj with mesh.mtl and mesh.png, mesh.ply, mesh.stl
turntable.mp4           the mesh turning
report.html             a page that shows the result
reconstruction.json     settings, scores, seconds of each stage; written last

A fit with other settings leaves an earlier result as it is until the new field is saved.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from conf.options import UserError
from inference.reconstruction.fitted_field import FittedField, save_field
from inference.reconstruction.textured_surface import TexturedSurface
from inference.views.media import png, write_mp4
from pipeline.output import FolderLayout, json_object, names_in
from pipeline.storage import sweep, write_atomically

COMMAND = "inference.reconstruct"
FIELD, SETTINGS, RECORD = "field.npz", "settings.json", "reconstruction.json"
INPUT, PREVIEW, VIEWS, FILM, REPORT = "input.png", "preview.png", "views", "turntable.mp4", "report.html"
STATES = "state-????????.npz"  # pattern of the files of `state_file`
MESHES = tuple(f"mesh.{suffix}" for suffix in ("glb", "obj", "mtl", "png", "ply", "stl"))
LAYOUT = FolderLayout(
    SETTINGS,
    lambda contents: json_object(contents).get("command") == COMMAND,
    r"settings\.json|input\.png|preview\.png|state-[0-9a-f]{8}\.npz|field\.npz|views|mesh\.(glb|obj|mtl|png|ply|stl)|turntable\.mp4|report\.html"
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


def require_kept(source: Path, folder: Path, option: str) -> None:
    """Raise `UserError` if the file that `option` names is one that a reconstruction into `folder` replaces."""
    place, output = source.resolve(), folder.resolve()
    if output in place.parents and re.fullmatch(LAYOUT.writes, place.relative_to(output).parts[0]):
        raise UserError(f"{option}={source}: lies in output={folder}, and would be replaced; choose another output")


def start_folder(folder: Path) -> None:
    """Create the folder of a reconstruction and mark it as such, or remove what killed writers left in it."""
    folder.mkdir(parents=True, exist_ok=True)
    for place in (folder, folder / VIEWS):
        sweep(str(place))
    if not (folder / SETTINGS).exists():
        write_json(folder / SETTINGS, {"command": COMMAND})


def state_file(folder: Path, settings: dict[str, Any]) -> Path:
    """Return the file that keeps the state of a fit with these settings."""
    digest = hashlib.sha256(json.dumps(settings["fit_settings"], sort_keys=True).encode()).hexdigest()
    return folder / STATES.replace("????????", digest[:8])


def has_fit_settings(folder: Path, settings: dict[str, Any]) -> bool:
    """Return whether a folder was begun with these settings of the fit."""
    begun: bool = read_json(folder / SETTINGS).get("fit_settings") == settings["fit_settings"]
    return begun


def is_fitted(folder: Path, settings: dict[str, Any]) -> bool:
    """Return whether a folder holds the field of these settings."""
    return has_fit_settings(folder, settings) and (folder / FIELD).exists()


def replace_fit(folder: Path, field: FittedField, settings: dict[str, Any]) -> None:
    """Save a fitted field and its views, and delete the earlier field's views and mesh and the states of all fits.

    An interrupted call leaves a field without settings, which no command starts from.
    """
    write_json(folder / SETTINGS, {"command": COMMAND})
    save_field(folder / FIELD, field)
    clear_results(folder)
    for path in (folder / VIEWS).glob("[0-9][0-9][0-9].png"):
        path.unlink()
    write_views(folder, field)
    write_json(folder / SETTINGS, {name: settings[name] for name in ("command", "fit_settings")})
    for path in folder.glob(STATES):
        path.unlink()


def clear_results(folder: Path) -> None:
    """Delete the mesh of a field and all that shows it, the record first."""
    for name in (RECORD, *MESHES, FILM, REPORT):
        (folder / name).unlink(missing_ok=True)


def discard_failed(folder: Path) -> None:
    """Delete what a failed fit wrote to a folder that holds neither a result nor a state, the mark last."""
    if {name for name in names_in(str(folder)) if re.fullmatch(LAYOUT.writes, name)} <= {PREVIEW, SETTINGS}:
        for name in (PREVIEW, SETTINGS):
            (folder / name).unlink(missing_ok=True)
        with suppress(OSError):  # it holds files of others
            folder.rmdir()


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
