"""Pictures of one object from known cameras."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rendering.cameras import Array


@dataclass(frozen=True)
class PosedViews:
    """Pictures of one object from known cameras.

    Attributes:
        cameras: Extrinsics `[N, 3, 4]`, world→camera, in the conventions of `rendering.cameras`; field of view 49.13°.
        pictures: The object on white, uint8 `[N, R, R, 3]`.
        masks: Coverage by the object, float32 `[N, R, R]` in [0, 1].
        weights: Trust in each view, float32 `[N]`; the photograph has the highest.
    """

    cameras: Array
    pictures: NDArray[np.uint8]
    masks: NDArray[np.float32]
    weights: NDArray[np.float32]
