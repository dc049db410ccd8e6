"""Define a method whose pictures are scored."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference.evaluation.pairs import Pair
from inference.evaluation.scored_object import ScoredObject

Pixels = NDArray[np.uint8]


class MissingPicture(Exception):
    """A method has no valid picture of a view; the message is the reason."""


@dataclass(frozen=True)
class Method:
    """A method that predicts the target view of a pair.

    Attributes:
        name: Name in tables and files.
        label: Display name.
        pictures: Returns its pictures of a pair, uint8 `[R, R, 3]` each: one, or several samples. Raises
            `MissingPicture`.
    """

    name: str
    label: str
    pictures: Callable[[ScoredObject, Pair], list[Pixels]]


def resized(picture: Pixels, resolution: int) -> Pixels:
    """Return a picture `[S, S, 3]` at `[R, R, 3]`, bicubic, antialiased where it is reduced."""
    if picture.shape[:2] == (resolution, resolution):
        return picture
    return np.asarray(Image.fromarray(picture).resize((resolution, resolution), Image.Resampling.BICUBIC))
