"""Sample views in batches that fit into the memory of the device."""

import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from conf.options import UserError


@dataclass
class BatchLimit:
    """Largest batch that a device is given; lowered where memory does not suffice, and kept between calls.

    Attributes:
        views: Number of views that are denoised together.
    """

    views: int = sys.maxsize

    def halve(self, size: int, max_batch: int) -> None:
        """Lower the limit below a `size` that does not fit, to a half, quarter … of `max_batch`."""
        self.views = min(self.views, max_batch)
        while self.views >= size:  # the halves of `max_batch` alone, so that earlier failures change no later batch
            self.views //= 2


def in_batches(
    denoise: Callable[[slice, Callable[[], object]], Tensor],
    decode: Callable[[Tensor], Tensor],
    count: int,
    steps: int,
    report: Callable[[int], object],
    max_batch: int,
    limit: BatchLimit,
) -> Tensor:
    """Draw views in batches that are halved where memory does not suffice.

    Args:
        denoise: Returns the latents `[B, C, h, w]` of a slice of the poses; calls its second argument after each step.
        decode: Returns the views `[B, 3, R, R]` of latents.
        count: Number N of poses.
        steps: Steps of a pose.
        report: Called with the number of steps done of all poses.
        max_batch: Number of poses in the first batch.
        limit: Further limit of the batches, which is lowered where memory does not suffice.

    Returns:
        Views `[N, 3, R, R]` in [-1, 1], on the CPU.

    Raises:
        UserError: A single view does not fit into memory, or a view is not finite.
    """
    views, first = list[Tensor](), 0
    while first < count:
        batch = slice(first, min(first + min(max_batch, limit.views), count))
        size = batch.stop - first
        try:
            latents = denoise(batch, _step_counter(report, first * steps, size))
        except torch.OutOfMemoryError:
            _require_several(size)
            limit.halve(size, max_batch)
            continue
        views += map(_require_finite_views, _decoded(decode, latents))
        first += size
    return torch.cat(views)


def _decoded(decode: Callable[[Tensor], Tensor], latents_BCHW: Tensor) -> list[Tensor]:
    """Return the views of latents, on the CPU, in parts that are halved where memory does not suffice."""
    parts, first, size = list[Tensor](), 0, len(latents_BCHW)
    while first < len(latents_BCHW):
        try:
            parts.append(decode(latents_BCHW[first : first + size]).cpu())
        except torch.OutOfMemoryError:
            _require_several(size)
            size //= 2
            continue
        first += size
    return parts


def _require_several(size: int) -> None:
    """Raise `UserError` if a batch that does not fit into memory is a single view."""
    if size == 1:
        raise UserError("the device has too little memory for a single view; try device=cpu") from None


def _require_finite_views(views_N3RR: Tensor) -> Tensor:
    if not views_N3RR.isfinite().all():
        raise UserError("the model's views are not finite; use precision=float32, or another checkpoint")
    return views_N3RR


def _step_counter(report: Callable[[int], object], before: int, size: int) -> Callable[[], object]:
    """Return a function that reports the steps of a batch of `size` poses, added to `before` of earlier batches."""
    counts = itertools.count(before + size, size)
    return lambda: report(next(counts))
