"""Sample views in batches that fit into the memory of the device."""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from conf.options import UserError


def in_batches(
    draw: Callable[[slice, Callable[[], object]], Tensor],
    count: int,
    steps: int,
    report: Callable[[int], object],
    max_batch: int,
) -> Tensor:
    """Draw views in batches that are halved where memory does not suffice.

    Args:
        draw: Returns the views `[B, 3, R, R]` of a slice of the poses; calls its second argument after each step.
        count: Number N of poses.
        steps: Steps of a pose.
        report: Called with the number of steps done of all poses.
        max_batch: Number of poses in the first batch.

    Returns:
        Views `[N, 3, R, R]` in [-1, 1], on the CPU.

    Raises:
        UserError: A single view does not fit into memory, or a view is not finite.
    """
    views, first = list[Tensor](), 0
    while first < count:
        batch = slice(first, min(first + max_batch, count))
        size = batch.stop - first
        try:
            views.append(_require_finite_views(draw(batch, _step_counter(report, first * steps, size)).cpu()))
        except torch.OutOfMemoryError:
            if size == 1:
                raise UserError("the device has too little memory for a single view; try device=cpu") from None
            max_batch = size // 2
            continue
        first += size
    return torch.cat(views)


def _require_finite_views(views_N3RR: Tensor) -> Tensor:
    if not views_N3RR.isfinite().all():
        raise UserError("the model's views are not finite; use precision=float32, or another checkpoint")
    return views_N3RR


def _step_counter(report: Callable[[int], object], before: int, size: int) -> Callable[[], object]:
    """Return a function that reports the steps of a batch of `size` poses, added to `before` of earlier batches."""
    counts = itertools.count(before + size, size)
    return lambda: report(next(counts))
