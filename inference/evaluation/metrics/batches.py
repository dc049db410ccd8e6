"""Batch pictures for networks, with equal results in every run."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from inference.evaluation.metrics.metric import Pixels


def tensors_in_batches(
    sets: Sequence[Sequence[Pixels]], size: int, device: torch.device
) -> Iterator[tuple[Tensor, ...]]:
    """Yield batches of pictures as float32 `[B, 3, R, R]`, values in [0, 255].

    Args:
        sets: Lists of equally many pictures, uint8 `[R, R, 3]`; pictures at one index have one size.
        size: Largest number B of pictures in a batch. Consecutive pictures of one size share a batch.
        device: Where the batches are needed.

    Yields:
        A batch of each set.
    """
    for _, group in groupby(zip(*sets, strict=True), key=lambda pictures: pictures[0].shape):
        same_size = list(group)
        for start in range(0, len(same_size), size):
            columns = zip(*same_size[start : start + size], strict=True)
            yield tuple(_as_tensor(column, device) for column in columns)


def _as_tensor(pictures: Sequence[Pixels], device: torch.device) -> Tensor:
    return torch.from_numpy(np.stack(pictures)).to(device).permute(0, 3, 1, 2).float().contiguous()


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Compute convolutions on a GPU in float32, not in TF32, by algorithms that are the same in every run."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
