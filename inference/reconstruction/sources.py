"""Open the source of a reconstruction: a picture with a checkpoint, or a mesh as oracle.

A source is described before it is opened, so that a command that continues finished work loads the checkpoint, whose
weights identify the result, but neither prepares a picture nor reads a mesh.
"""

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from conf.options import UserError
from inference.config import TextToViewsConfig
from inference.elevation.estimate import estimate_elevation
from inference.meshes.mesh_digest import mesh_digest
from inference.meshes.ray_casting import RayCaster
from inference.meshes.read_mesh import read_mesh
from inference.meshes.textured_mesh import TexturedMesh
from inference.novel_view import EncodedImage, NovelView
from inference.poses import cameras_after, given_elevation
from inference.preprocess.framing import Prepared, prepare
from inference.preprocess.photograph import PictureError, read_photograph
from inference.reconstruction.config import Method, ReconstructConfig
from inference.reconstruction.guidance.guide import DrawnViews, Guide
from inference.reconstruction.guidance.model_guide import ModelGuide
from inference.reconstruction.guidance.oracle_guide import OracleGuide
from inference.reconstruction.library import FINE_PX, one_view, picture_guide
from inference.views.text_to_image import write_picture
from inference.views.view_folder import ELEVATION_SAMPLING

ORACLE_ELEVATION = 20.0  # of the input camera, where none is given
ORACLE_PX = {Method.views: 192, Method.sjc: 64}  # side of an oracle's views, where none is given
MODEL_OPTIONS = ("elevation", "cutout", "fill", "precision", "sampling")
DEFAULT_ELEVATION = 20.0  # where none is given and the estimate fails


@dataclass(frozen=True)
class Opened:
    """An opened source.

    Attributes:
        guide: Draws views.
        photograph: The input picture, one view, at the guide's resolution.
        fine: The input picture at `FINE_PX`, which the mesh is coloured from.
        elevation: Of the input camera, degrees above the horizon.
        truth: The true mesh; None for a picture.
        oracle: Draws the true views; None for a picture.
    """

    guide: Guide
    photograph: DrawnViews
    fine: DrawnViews
    elevation: float
    truth: TexturedMesh | None = None
    oracle: OracleGuide | None = None


@dataclass(frozen=True)
class Source:
    """A source that is not opened yet.

    Attributes:
        name: Display name: path or prompt.
        identity: Hashes of the files that decide the result, for JSON.
        options: Names of the options that decide the field, beside `method` and those of the method.
        open: Opens the source; its argument is the elevation of the input camera, degrees, if it is known already.
    """

    name: str
    identity: dict[str, str]
    options: tuple[str, ...]
    open: Callable[[float | None], Opened]


def picture_source(image: Path, config: ReconstructConfig, load: Callable[[], NovelView]) -> Source:
    """Return the source of a picture; the picture is read before `load` loads the checkpoint.

    Raises:
        PictureError: The picture cannot be read.
    """
    photograph, identity = read_photograph(image), sha256(image)
    novel_view = load()

    def opened(known_elevation: float | None) -> Opened:
        try:
            prepared = novel_view.prepare(photograph, config.cutout, config.fill)
        except PictureError as error:
            raise PictureError(error.reason, image) from error
        encoded = novel_view.encode(prepared)
        elevation = given_elevation(config.elevation) if known_elevation is None else known_elevation
        if elevation is None:
            elevation = _estimated(novel_view, prepared.image, encoded)
        guide = picture_guide(novel_view, encoded, elevation, config.sampling)
        fine = prepare(photograph, config.cutout, config.fill, max(FINE_PX, novel_view.model.resolution))
        return Opened(guide, one_view(prepared.image), one_view(fine.image), elevation)

    return Source(str(image), {"image": identity, "weights": novel_view.fingerprint}, MODEL_OPTIONS, opened)


def prompt_source(output: Path, config: ReconstructConfig, novel_view: NovelView) -> Source:
    """Generate the picture of a prompt into `output`, unless it exists, and return its source."""
    views = TextToViewsConfig(
        prompt=config.prompt,
        suffix=config.suffix,
        text_to_image=config.text_to_image,
        text_steps=config.text_steps,
        device=config.device,
        sampling=config.sampling,
    )
    return replace(picture_source(write_picture(output, views), config, lambda: novel_view), name=config.prompt)


def oracle_source(path: Path, config: ReconstructConfig, novel_view: NovelView | None) -> Source:
    """Return the source of a mesh that answers with its true views, or whose picture is given to a checkpoint.

    Args:
        path: The mesh.
        config: Options of the command.
        novel_view: Draws the views, given the mesh's picture; None: the mesh draws them.

    Raises:
        UserError: The file cannot be read.
    """

    def opened(known_elevation: float | None) -> Opened:
        truth = read_mesh(path)
        degrees = given_elevation(config.elevation)
        elevation = ORACLE_ELEVATION if degrees is None else degrees
        camera = cameras_after([(0, 0, 0)], elevation)[0]
        resolution = config.resolution or ORACLE_PX[config.method]
        if novel_view is not None:
            resolution = novel_view.model.resolution
        oracle = OracleGuide(RayCaster(truth), camera, resolution)
        photograph = oracle.draw(camera[None], 0, lambda done, total: None)
        fine = OracleGuide(oracle.caster, camera, max(FINE_PX, resolution)).draw(
            camera[None], 0, lambda done, total: None
        )
        if novel_view is None:
            return Opened(oracle, photograph, fine, elevation, truth, oracle)
        picture = Image.fromarray(photograph.pictures[0])
        encoded = novel_view.encode(Prepared(picture, picture))
        return Opened(
            ModelGuide(novel_view, encoded, camera, config.sampling), photograph, fine, elevation, truth, oracle
        )

    if novel_view is None:
        return Source(str(path), {"mesh": mesh_digest(path)}, ("elevation", "resolution"), opened)
    return Source(str(path), {"mesh": mesh_digest(path), "weights": novel_view.fingerprint}, MODEL_OPTIONS, opened)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from error


def _estimated(novel_view: NovelView, picture: Image.Image, encoded: EncodedImage) -> float:
    """Estimate the elevation of the picture's camera; where that fails, say so and assume a common one."""
    try:
        estimate = estimate_elevation(
            lambda poses: novel_view(encoded, poses, ELEVATION_SAMPLING, bar="elevation"), picture
        )
    except UserError as error:
        tqdm.write(f"elevation: assumed to be {DEFAULT_ELEVATION:.0f}°; {error}", sys.stderr)
        return DEFAULT_ELEVATION
    tqdm.write(f"elevation: {estimate.degrees:.0f}° ± {estimate.uncertainty_degrees:.0f}° above the horizon, estimated")
    return estimate.degrees
