"""The output folder of a reconstruction.

settings.json           what decides the result; written first, and identifies the folder
input.png               the prepared picture
preview.png             renders of the fit, renewed while it runs
field.npz               the fitted field; a command with other settings of the mesh starts from it
views/000.png …         the views that the field was fitted to, the input first
mesh.glb                the mesh, or mesh.obj with mesh.mtl and mesh.png, mesh.ply, mesh.stl
turntable.mp4           the mesh turning
report.html             the result for people
reconstruction.json     settings, scores, seconds of each stage; written last
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference.meshes.ray_casting import RayCaster
from inference.meshes.textured_mesh import TexturedMesh
from inference.reconstruction.fitted_field import FittedField
from inference.reconstruction.textured_surface import TexturedSurface
from inference.views.media import write_mp4
from pipeline.output import FolderLayout, json_object
from pipeline.storage import write_atomically
from rendering.cameras import orbit

COMMAND = "inference.reconstruct"
FIELD, SETTINGS, RECORD = "field.npz", "settings.json", "reconstruction.json"
LAYOUT = FolderLayout(
    SETTINGS,
    lambda contents: json_object(contents).get("command") == COMMAND,
    r"settings\.json|input\.png|preview\.png|field\.npz|views|mesh\.\w+|turntable\.mp4|report\.html|reconstruction\.json",
)
TURNTABLE_VIEWS, TURNTABLE_PX, TURNTABLE_ELEVATION = 48, 384, 20.0
TURNTABLE_RADIUS = 1.85  # object sizes


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
    before = read_json(folder / SETTINGS)
    (folder / RECORD).unlink(missing_ok=True)
    if before.get("fit_settings") != settings["fit_settings"]:
        for name in (FIELD, "input.png", "preview.png"):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / "views", ignore_errors=True)
    for path in folder.glob("mesh.*"):
        path.unlink()
    write_json(folder / SETTINGS, settings)


def record(result: Result, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the contents of reconstruction.json."""
    check = asdict(result.surface.check)
    return {
        **settings,
        "name": result.name,
        "elevation_degrees": result.elevation,
        "seconds": {stage: round(seconds, 2) for stage, seconds in result.seconds.items()},
        "fit": {name: round(value, 3) for name, value in result.field.scores.items()},
        "mesh": {**check, "agreement_db": round(result.surface.agreement_db, 3)},
        "truth": {name: round(value, 5) for name, value in result.truth.items()},
    }


def write_views(folder: Path, field: FittedField) -> None:
    """Write the views that a field was fitted to, and the input."""
    (folder / "views").mkdir(exist_ok=True)
    for number, pixels in enumerate(field.views.pictures):
        Image.fromarray(pixels).save(folder / "views" / f"{number:03d}.png")
    Image.fromarray(field.views.pictures[0]).save(folder / "input.png")


def turntable(mesh: TexturedMesh) -> list[Image.Image]:
    """Return pictures of a mesh on a circle around it, on white."""
    cameras = orbit(TURNTABLE_VIEWS, np.radians(90 - TURNTABLE_ELEVATION), TURNTABLE_RADIUS)
    rgba = RayCaster(mesh).render(cameras, TURNTABLE_PX)
    return [Image.fromarray(pixels) for pixels in on_white(rgba)]


def on_white(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return pictures `[N, R, R, 4]` with straight alpha on white, `[N, R, R, 3]`."""
    alpha = rgba[..., 3:] / 255
    white: NDArray[np.uint8] = (rgba[..., :3] * alpha + 255 * (1 - alpha)).round().astype(np.uint8)
    return white


def write_film(path: Path, frames: Sequence[Image.Image]) -> None:
    """Write a film aside, then rename it."""
    part = path.with_name(f".{path.name}")
    write_mp4(part, frames)
    part.replace(path)
