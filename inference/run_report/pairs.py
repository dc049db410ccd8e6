"""Sample and score pairs of views of held-out objects."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from inference.config import Sampling
from inference.novel_view import NovelView, to_image
from inference.preprocess.framing import Prepared
from pipeline.samples import Sample, npy_array, view_names
from rendering.cameras import camera_centre, cartesian_to_spherical, relative_pose
from rendering.psnr import psnr
from training.model.conditioning import convert_pose
from training.model.picture import decode

SEED_STRIDE = 1_000_003  # between the first seeds of two values of sampling.seed


@dataclass(frozen=True)
class Pair:
    """Two views `[R, R, 3]` of one object, the relative pose `[4]`, and the condition's polar angle in radians."""

    uid: str
    condition: NDArray[np.uint8]
    target: NDArray[np.uint8]
    pose: NDArray[np.float64]
    condition_polar: float


@dataclass(frozen=True)
class ScoredView:
    """A sampled view and its score.

    Attributes:
        pair: The input, the truth and the pose.
        view: The sampled view, uint8 `[R, R, 3]`.
        start: The view that the checkpoint sampled from which the run started; None without such a checkpoint.
    """

    pair: Pair
    view: NDArray[np.uint8]
    start: NDArray[np.uint8] | None = None

    @property
    def psnr_db(self) -> float:
        """PSNR of the sampled view."""
        return psnr(self.view, self.pair.target)

    @property
    def start_db(self) -> float | None:
        """PSNR of the view of the checkpoint from which the run started."""
        return None if self.start is None else psnr(self.start, self.pair.target)

    @property
    def baseline_db(self) -> float:
        """PSNR of the input view, taken as the prediction."""
        return psnr(self.pair.condition, self.pair.target)


def view_pairs(uid: str, sample: Sample, resolution: int, seed: int) -> Iterator[Pair]:
    """Yield all ordered pairs of different views, in an order that depends on `seed` and `uid`."""
    names, cameras = view_names(sample), npy_array(sample["cameras.npy"])
    pairs = list(itertools.permutations(range(len(names)), 2))
    for i in np.random.default_rng([seed, *uid.encode()]).permutation(len(pairs)):
        condition, target = pairs[i]
        yield Pair(
            uid,
            decode(sample[names[condition]], resolution),
            decode(sample[names[target]], resolution),
            relative_pose(cameras[target], cameras[condition]),
            cartesian_to_spherical(camera_centre(cameras[condition]))[0],
        )


def sample_pairs(
    novel_view: NovelView, start: NovelView | None, pairs: list[Pair], sampling: Sampling
) -> list[ScoredView]:
    """Sample the target view of each pair, each with its own seed; `start` samples them too."""
    views = _views(novel_view, pairs, sampling)
    starts = [None] * len(pairs) if start is None else _views(start, pairs, sampling)
    return [ScoredView(*row) for row in zip(pairs, views, starts, strict=True)]


def _views(novel_view: NovelView, pairs: list[Pair], sampling: Sampling) -> list[NDArray[np.uint8]]:
    encoded = novel_view.encode(*(prepared(pair.condition) for pair in pairs))
    first_seed = sampling.seed * SEED_STRIDE
    seeds = range(first_seed, first_seed + len(pairs))
    poses = torch.from_numpy(np.stack([pair.pose for pair in pairs]))
    polars = torch.tensor([pair.condition_polar for pair in pairs], dtype=torch.float64)
    poses = convert_pose(novel_view.model.cc_projection.pose_vector, poses, polars)
    return [np.array(to_image(view)) for view in novel_view.sample(encoded, poses, sampling, seeds)]


def prepared(render: NDArray[np.uint8]) -> Prepared:
    """Return a rendered view as it is, since renders need no preparation."""
    image = Image.fromarray(render)
    return Prepared(image, image)


def mean_scores(scored: list[ScoredView]) -> tuple[float, float]:
    """Return the mean PSNR, dB, of the sampled views and of the input views."""
    return float(np.mean([view.psnr_db for view in scored])), float(np.mean([view.baseline_db for view in scored]))


def mean_start_score(scored: list[ScoredView]) -> float | None:
    """Return the mean PSNR, dB, of the views of the checkpoint from which the run started."""
    scores = [view.start_db for view in scored if view.start_db is not None]
    return float(np.mean(scores)) if scores else None
