"""Load metrics by their names."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from conf.options import UserError
from inference.evaluation.metrics.clip import load_clip_similarity
from inference.evaluation.metrics.frechet_distance import load_clip_fid, load_fid
from inference.evaluation.metrics.masks import MASK_IOU
from inference.evaluation.metrics.metric import PictureMetric, SetMetric
from inference.evaluation.metrics.perceptual_distance import NETWORKS, load_lpips, load_st_lpips
from inference.evaluation.metrics.pixels import MSE, PSNR
from inference.evaluation.metrics.structural_similarity import (
    SSIM,
    SSIM_MEASURED_RANGE,
    SSIM_UNIFORM7,
    SSIM_UNIFORM11,
)
from inference.evaluation.metrics.weight_files import UnavailableMetric
from inference.evaluation.metrics.weights import MetricWeights

WITHOUT_WEIGHTS = {
    metric.name: metric for metric in (PSNR, MSE, SSIM, SSIM_MEASURED_RANGE, SSIM_UNIFORM7, SSIM_UNIFORM11, MASK_IOU)
}
Load = Callable[[MetricWeights, torch.device], PictureMetric | SetMetric]
WITH_WEIGHTS: dict[str, Load] = {
    **{f"lpips_{net}": partial(load_lpips, net) for net in NETWORKS},
    "st_lpips_alex": load_st_lpips,
    "clip_similarity": load_clip_similarity,
    "fid": load_fid,
    "clip_fid": load_clip_fid,
}
METRIC_NAMES = (*WITHOUT_WEIGHTS, *WITH_WEIGHTS)


@dataclass(frozen=True)
class LoadedMetrics:
    """Metrics that can be computed.

    Attributes:
        picture_metrics: Metrics of each picture.
        set_metrics: Metrics of all pictures together.
        missing: For each other metric a sentence that begins with its name, and says what is missing and how to give
            it.
    """

    picture_metrics: tuple[PictureMetric, ...] = ()
    set_metrics: tuple[SetMetric, ...] = ()
    missing: tuple[str, ...] = ()


def require_known(names: Sequence[str]) -> None:
    """Raise `UserError` if one of the names is no metric."""
    for name in names:
        if name not in METRIC_NAMES:
            raise UserError(f"metrics={name}: unknown; use {', '.join(METRIC_NAMES)}")


def load_metrics(
    names: Sequence[str], weights: MetricWeights, device: torch.device, resolution: int | None = None
) -> LoadedMetrics:
    """Load metrics, each once, in the order of their names.

    A metric whose weights cannot be had, or which needs larger pictures, is left out, and never replaced by another.

    Args:
        names: Names out of `METRIC_NAMES`.
        weights: Where the weights are.
        device: Where the networks run.
        resolution: Side of the pictures to be scored, pixels; None if it is not known.

    Raises:
        UserError: A name is unknown, or a given file holds other weights.
    """
    require_known(names)
    loaded: list[PictureMetric | SetMetric] = []
    missing: list[str] = []
    for name in dict.fromkeys(names):
        try:
            metric = WITHOUT_WEIGHTS[name] if name in WITHOUT_WEIGHTS else WITH_WEIGHTS[name](weights, device)
            _require_size(metric, resolution)
        except UnavailableMetric as error:
            missing.append(f"{name}: {error}")
        else:
            loaded.append(metric)
    return LoadedMetrics(
        tuple(metric for metric in loaded if isinstance(metric, PictureMetric)),
        tuple(metric for metric in loaded if isinstance(metric, SetMetric)),
        tuple(missing),
    )


def _require_size(metric: PictureMetric | SetMetric, resolution: int | None) -> None:
    """Raise `UnavailableMetric` if pictures of the resolution are too small for a metric."""
    if isinstance(metric, PictureMetric) and resolution is not None and resolution < metric.min_side:
        raise UnavailableMetric(f"needs pictures of {metric.min_side}² pixels or more, not {resolution}²")
