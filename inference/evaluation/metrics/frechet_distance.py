"""Fréchet distance between the features of two sets of pictures: FID (Heusel et al. 2017) and CLIP-FID.

d² = |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁ Σ₂)^½)        with the unbiased covariances Σ
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from conf.options import UserError
from inference.evaluation.metrics.batches import exact_convolutions
from inference.evaluation.metrics.clip import ClipEncoder, load_clip
from inference.evaluation.metrics.inception import FEATURES, SIDE_PX, Inception
from inference.evaluation.metrics.metric import MIN_SET_PICTURES, Features, Pixels, SetMetric
from inference.evaluation.metrics.pictures import require_pictures
from inference.evaluation.metrics.weight_files import (
    Release,
    UnavailableMetric,
    describe_file,
    find_weights,
    load_tensors,
    read_tensors,
)
from inference.evaluation.metrics.weights import CLIP_VIT_B_32, MetricWeights

BATCH = 32  # pictures
CLASSES = 1008  # of FID's network; torchvision's has tensors of the same names, and 1000
INCEPTION = Release(
    "weights.inception",
    "FID's Inception network, pt_inception-2015-12-05-6726825d.pth",
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
)
BIASED = (
    "with few pictures it is too large, and grows as the number of pictures falls: compare it only between equally many"
)


def frechet_distance(predicted: Features, true: Features) -> float:
    """Return the squared Fréchet distance of two Gaussians that have the mean and covariance of features.

    With the rows of A and B the centred features, divided by the roots of their numbers minus one, the trace of
    (Σ₁ Σ₂)^½ is the sum of the singular values of A Bᵀ; so it is exact with fewer pictures than features, too.

    Args:
        predicted: Features `[N, F]` of predicted pictures.
        true: Features `[M, F]` of true pictures.

    Raises:
        UserError: N or M is below 2, where no covariance is defined.
    """
    if min(len(predicted), len(true)) < MIN_SET_PICTURES:
        raise UserError(f"FID needs two pictures or more, not {min(len(predicted), len(true))}; score more objects")
    mean = predicted.mean(axis=0) - true.mean(axis=0)
    a, b = _root(predicted), _root(true)
    overlap = np.linalg.norm(a @ b.T, ord="nuc")
    return max(float(mean @ mean + (a**2).sum() + (b**2).sum() - 2 * overlap), 0.0)


def _root(features: Features) -> NDArray[np.float64]:
    """Return a matrix `[K, F]` with K ≤ F rows whose product with its transpose is the covariance of the features."""
    centred = (features - features.mean(axis=0)) / np.sqrt(len(features) - 1)
    return np.asarray(np.linalg.qr(centred, mode="r")) if len(centred) > centred.shape[1] else centred


def load_fid(weights: MetricWeights, device: torch.device) -> SetMetric:
    """Load FID as clean-fid computes it by default.

    Raises:
        UnavailableMetric: The network's weights cannot be had.
        UserError: The given file holds something else.
    """
    path = find_weights(INCEPTION, weights.inception, weights.download)
    network, tensors, source = Inception(), read_tensors(path, INCEPTION.option), f"{INCEPTION.option}={path}"
    if len(tensors.get("fc.bias", ())) != CLASSES:
        raise UserError(f"{source}: is another network than FID's; give pt_inception-2015-12-05-6726825d.pth")
    load_tensors(network, tensors, source, INCEPTION.title)
    definition = (
        f"Fréchet distance of {FEATURES} features of TensorFlow's Inception of 2015-12-05 "
        f"({describe_file(path, INCEPTION)}), "
        f"pictures resized to {SIDE_PX}² as clean-fid does (Pillow, bicubic, antialiased, not rounded); {BIASED}"
    )
    features = partial(inception_features, network.to(device), device)
    return SetMetric("fid", "FID", definition, features, frechet_distance)


def load_clip_fid(weights: MetricWeights, device: torch.device) -> SetMetric:
    """Load CLIP-FID as clean-fid computes it with `model_name="clip_vit_b_32"`.

    Raises:
        UnavailableMetric: The model cannot be had, or it is not CLIP ViT-B/32.
    """
    encoder = load_clip(weights, device)
    if (encoder.patch, encoder.width, encoder.features) != (32, 768, 512):
        raise UnavailableMetric(
            f"is defined with CLIP ViT-B/32, and weights.clip={weights.clip} is another model; give {CLIP_VIT_B_32}"
        )
    definition = f"Fréchet distance of {encoder.features} features: {encoder.definition}; {BIASED}"
    return clip_fid(encoder, definition)


def clip_fid(encoder: ClipEncoder, definition: str) -> SetMetric:
    """Return the Fréchet distance of the embeddings of a CLIP model."""
    return SetMetric("clip_fid", "CLIP-FID", definition, partial(_clip_features, encoder.embed), frechet_distance)


def _clip_features(embed: Callable[[Sequence[Pixels]], Features], pictures: Sequence[Pixels]) -> Features:
    require_pictures(pictures, "clip_fid")
    return embed(pictures)


def inception_features(network: Inception, device: torch.device, pictures: Sequence[Pixels]) -> Features:
    """Return the features `[N, 2048]` of pictures, uint8 `[R, R, 3]`."""
    require_pictures(pictures, "fid")
    features = [np.empty((0, FEATURES))]
    with torch.inference_mode(), exact_convolutions():
        for start in range(0, len(pictures), BATCH):
            resized = np.stack([resize(picture) for picture in pictures[start : start + BATCH]])
            batch = torch.from_numpy(resized).to(device).permute(0, 3, 1, 2)
            features.append(network((batch - 128) / 128).double().cpu().numpy())
    return np.concatenate(features)


def resize(picture: Pixels) -> NDArray[np.float32]:
    """Return a picture as float32 `[299, 299, 3]`, values in [0, 255], resized without rounding."""
    channels = [Image.fromarray(picture[..., channel].astype(np.float32)) for channel in range(3)]
    size = (SIDE_PX, SIDE_PX)
    resized = [np.asarray(channel.resize(size, Image.Resampling.BICUBIC)) for channel in channels]
    return np.stack(resized, axis=2).clip(0, 255)
