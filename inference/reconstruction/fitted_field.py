"""Store a fitted radiance field as arrays, from which the surface is extracted."""

import io
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from conf.options import UserError, first_line
from inference.reconstruction.posed_views import PosedViews
from pipeline.storage import write_atomically
from rendering.cameras import Array, camera_centre, cartesian_to_spherical

VIEW_PARTS = ("cameras", "pictures", "masks", "weights")


@dataclass(frozen=True)
class ShownGuess:
    """Sampled views, stored for the report.

    Attributes:
        seed: Seed of the views.
        consistency_db: PSNR, dB, with which a fit to half of the views predicts the other half.
        pictures: Some of the views, small, uint8 `[K, S, S, 3]`.
    """

    seed: int
    consistency_db: float
    pictures: NDArray[np.uint8]


@dataclass(frozen=True)
class FittedField:
    """A fitted radiance field on a grid of N³ nodes that span the cube [-half_side, half_side]³, index order x, y, z.

    Attributes:
        half_side: Half the side of the cube, object sizes.
        density: σ at the nodes, per object size, float32 `[N, N, N]`.
        colours: Colours of the nodes, uint8 `[N, N, N, 3]`.
        views: The views that the field was fitted to, the photograph first.
        renders: The field rendered from the cameras of `views`.
        scores: PSNR, dB, of the fit, by name.
        seconds: Duration of each stage, by name.
        guesses: All sets of sampled views, the fitted one first; empty for methods that sample a single set.
    """

    half_side: float
    density: NDArray[np.float32]
    colours: NDArray[np.uint8]
    views: PosedViews
    renders: PosedViews
    scores: dict[str, float]
    seconds: dict[str, float]
    guesses: tuple[ShownGuess, ...] = ()

    @property
    def input_elevation(self) -> float:
        """Elevation of the input camera, degrees above the horizon."""
        polar, _, _ = cartesian_to_spherical(camera_centre(self.views.cameras[0]))
        return 90 - math.degrees(polar)

    def colour_at(self, points: Array) -> Array:
        """Return the colours `[P, 3]` in [0, 1] of points `[P, 3]`, trilinear between nodes."""
        places = ((points + self.half_side) / (2 * self.half_side) * (len(self.density) - 1)).T
        channels = [
            map_coordinates(self.colours[..., c], places, np.float32, order=1, mode="nearest") for c in range(3)
        ]
        colours: Array = np.stack(channels, axis=1).astype(np.float64) / 255
        return colours


def save_field(path: Path, field: FittedField) -> None:
    """Write a field as an .npz file without pickled objects."""
    arrays = {"half_side": np.array(field.half_side), "density": field.density, "colours": field.colours}
    for name, views in (("views", field.views), ("renders", field.renders)):
        arrays |= {f"{name}_{part}": getattr(views, part) for part in VIEW_PARTS}
    for name, numbers in (("scores", field.scores), ("seconds", field.seconds)):
        arrays[f"{name}_names"] = np.array(list(numbers), dtype=str)
        arrays[name] = np.array(list(numbers.values()), dtype=np.float64)
    if field.guesses:
        arrays["guess_seeds"] = np.array([guess.seed for guess in field.guesses])
        arrays["guess_consistency_db"] = np.array([guess.consistency_db for guess in field.guesses])
        arrays["guess_pictures"] = np.stack([guess.pictures for guess in field.guesses])
    contents = io.BytesIO()
    np.savez_compressed(contents, **arrays)
    write_atomically(str(path), contents.getvalue())


def load_field(path: Path) -> FittedField:
    """Read a field that `save_field` wrote.

    Raises:
        UserError: The file is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            views, renders = (
                PosedViews(*(arrays[f"{name}_{part}"] for part in VIEW_PARTS)) for name in ("views", "renders")
            )
            scores, seconds = (
                dict(zip(arrays[f"{name}_names"].tolist(), arrays[name].tolist(), strict=True))
                for name in ("scores", "seconds")
            )
            half_side = float(arrays["half_side"])
            parts = ("guess_seeds", "guess_consistency_db", "guess_pictures")
            columns = [arrays[part] for part in parts] if parts[0] in arrays else []
            guesses = tuple(ShownGuess(int(seed), float(db), shown) for seed, db, shown in zip(*columns, strict=True))
            return FittedField(
                half_side, arrays["density"], arrays["colours"], views, renders, scores, seconds, guesses
            )
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: is damaged ({first_line(error)}); delete it, and repeat the command") from error
