"""Embeddings of pictures by CLIP (Radford et al. 2021), and their similarity."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from conf.options import UserError
from inference.evaluation.metrics.batches import exact_convolutions
from inference.evaluation.metrics.metric import Features, PictureMetric, Pixels
from inference.evaluation.metrics.pictures import require_pairs
from inference.evaluation.metrics.weight_files import UnavailableMetric
from inference.evaluation.metrics.weights import MetricWeights

BATCH = 32  # pictures


@dataclass(frozen=True)
class ClipEncoder:
    """CLIP's image encoder.

    Attributes:
        embed: Returns the projected embeddings `[N, features]`, not normalised, of pictures, uint8 `[R, R, 3]`.
        patch: Side of its patches, pixels.
        width: Width of its transformer.
        features: Length of an embedding.
        definition: Model and treatment of the pictures.
    """

    embed: Callable[[Sequence[Pixels]], Features]
    patch: int
    width: int
    features: int
    definition: str


def load_clip_similarity(weights: MetricWeights, device: torch.device) -> PictureMetric:
    """Load the cosine similarity of CLIP embeddings.

    Raises:
        UnavailableMetric: The model is neither a folder nor in the cache, and cannot be downloaded.
        UserError: The folder holds something else.
    """
    encoder = load_clip(weights, device)
    definition = f"cosine of the two pictures' embeddings: {encoder.definition}"
    return PictureMetric("clip_similarity", "CLIP similarity", definition, True, partial(_score, encoder.embed))


def _score(
    embed: Callable[[Sequence[Pixels]], Features], predictions: Sequence[Pixels], truths: Sequence[Pixels]
) -> list[float]:
    require_pairs(predictions, truths, "clip_similarity")
    one, truth = (_unit(embed(pictures)) for pictures in (predictions, truths))
    return np.sum(one * truth, axis=1).tolist()


def _unit(features: Features) -> Features:
    return features / np.linalg.norm(features, axis=1, keepdims=True)


@lru_cache(maxsize=1)  # two metrics use it
def load_clip(weights: MetricWeights, device: torch.device) -> ClipEncoder:
    """Load the image encoder that `weights.clip` names.

    Raises:
        UnavailableMetric: It is neither a folder nor in the cache, and cannot be downloaded.
        UserError: The folder holds something else.
    """
    from transformers import CLIPImageProcessorPil

    from training.model.checkpoints.model_parts import load_image_encoder  # diffusers takes long to import

    folder = _find(weights)
    try:
        model: Any = load_image_encoder(folder, untrusted=True)
    except UserError as error:
        raise UserError(f"weights.clip={weights.clip}: {error}") from error
    model.eval().requires_grad_(False).to(device)
    side = model.config.image_size
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}, do_convert_rgb=False
    )

    def embed(pictures: Sequence[Pixels]) -> Features:
        embeddings = [np.empty((0, model.config.projection_dim))]
        with torch.inference_mode(), exact_convolutions():
            for start in range(0, len(pictures), BATCH):
                batch = processor(
                    list(pictures[start : start + BATCH]), return_tensors="pt", input_data_format="channels_last"
                )
                embedded = model(batch["pixel_values"].to(device)).image_embeds
                embeddings.append(embedded.double().cpu().numpy())
        return np.concatenate(embeddings)

    patch, width = model.config.patch_size, model.config.hidden_size
    definition = (
        f"CLIP {weights.clip} (patches of {patch} pixels, width {width}), projected embeddings of "
        f"{model.config.projection_dim}, pictures resized to {side}² (Pillow, bicubic, antialiased, rounded to 8 bits)"
    )
    return ClipEncoder(embed, patch, width, model.config.projection_dim, definition)


def _find(weights: MetricWeights) -> Path:
    """Return the folder of the model, after downloading it where needed.

    Raises:
        UnavailableMetric: It is neither a folder nor in the cache, and cannot be downloaded.
    """
    from huggingface_hub import snapshot_download

    from training.model.checkpoints.hub import hub_uri, local_path

    advice = "give weights.clip=<folder of a CLIP model of transformers>"
    if not weights.clip:
        raise UnavailableMetric(f"has no model; {advice}")
    uri = hub_uri(weights.clip)
    if uri is None:
        if not Path(weights.clip).is_dir():
            raise UserError(f"weights.clip={weights.clip}: is no folder; {advice}")
        return Path(weights.clip)
    if weights.download:
        try:
            return local_path(weights.clip, parts=())
        except UserError as error:
            raise UnavailableMetric(f"{error}; {advice}") from error
    try:
        return Path(snapshot_download(uri.id, revision=uri.revision, local_files_only=True)) / uri.path_in_repo
    except Exception as error:  # several types of huggingface_hub
        raise UnavailableMetric(f"{weights.clip} is not in the cache, and weights.download=false; {advice}") from error
