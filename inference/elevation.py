"""How high the input's camera stood."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from conf.options import UserError
from inference.poses import Turn


@dataclass(frozen=True)
class Elevation:
    """Degrees above the horizon, one standard deviation, and the matches that speak for it."""

    degrees: float
    uncertainty_degrees: float
    matches: int


def elevation_of(view: Callable[[Sequence[Turn]], list[Image.Image]], picture: Image.Image) -> Elevation:
    """From views that the model draws a few degrees aside of `picture`."""
    raise UserError("give elevation=20")
