"""Callbacks that follow a reconstruction."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  # [R, R, 3]
OnProgress = Callable[[str, int, int, float | None], object]  # stage, steps done, steps in total, loss
OnPreview = Callable[[Callable[[], Pixels]], object]  # called often with a function that renders a picture


def _ignore(*arguments: object) -> None:
    """Take the place of a callback."""


@dataclass(frozen=True)
class Monitor:
    """Callbacks that follow a reconstruction.

    Attributes:
        on_progress: Called after each step with the stage's name, the steps done and in total, and the loss.
        on_preview: Called after each step of a fit with a function that renders the present state.
    """

    on_progress: OnProgress = _ignore
    on_preview: OnPreview = _ignore

    def of_stage(self, stage: str) -> Callable[[int, int], object]:
        """Return a callback that reports the numbers of steps done and in total for a stage."""
        return lambda done, total: self.on_progress(stage, done, total, None)
