"""A fitted radiance field, as the surface is extracted from it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.reconstruction.posed_views import PosedViews
from rendering.cameras import Array


@dataclass(frozen=True)
class FittedField:
    """A fitted radiance field.

    Attributes:
        density: σ at the nodes of the cube [-half_side, half_side]³, per object size, float32 `[N, N, N]`, index order
            x, y, z.
        half_side: Half the side of the cube.
        colours: Returns the colours `[P, 3]` in [0, 1] of points `[P, 3]`.
        views: The views that the field was fitted to, the photograph first.
        scores: What is known about the quality of the fit, by name.
    """

    density: NDArray[np.float32]
    half_side: float
    colours: Callable[[Array], Array]
    views: PosedViews
    scores: dict[str, float]
