"""The similarity of CLIP embeddings against a second computation."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPVisionModelWithProjection

from conf.options import UserError
from inference.evaluation.metrics.loading import load_metrics
from inference.evaluation.metrics.weights import MetricWeights

CPU = torch.device("cpu")
MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of CLIP's training


def pictures(count: int, side: int) -> list[np.ndarray]:
    rng = np.random.default_rng(side)
    small = rng.integers(0, 256, (count, 5, 5, 3), dtype=np.uint8)
    return [np.asarray(Image.fromarray(one).resize((side, side), Image.Resampling.BICUBIC)) for one in small]


@pytest.mark.parametrize("side", [32, 20, 70])
def test_similarity_agrees_with_a_second_computation(clip_folder, side):
    (metric,) = load_metrics(["clip_similarity"], MetricWeights(clip=str(clip_folder)), CPU).picture_metrics
    model = CLIPVisionModelWithProjection.from_pretrained(clip_folder)
    first, second = pictures(3, side), pictures(6, side)[3:]

    def embed(picture: np.ndarray) -> np.ndarray:
        resized = Image.fromarray(picture).resize((32, 32), Image.Resampling.BICUBIC)
        values = (np.asarray(resized) / 255 - MEAN) / DEVIATION
        with torch.no_grad():
            return model(torch.tensor(values).permute(2, 0, 1)[None].float()).image_embeds[0].numpy()

    cosines = []
    for one, other in zip(first, second, strict=True):
        a, b = embed(one), embed(other)
        cosines.append(a @ b / np.sqrt((a @ a) * (b @ b)))
    assert metric.score(first, second) == pytest.approx(cosines, abs=1e-4)
    assert metric.score(first, first) == pytest.approx([1] * 3, abs=1e-6)
    assert min(cosines) < 0.99


def test_pairs_that_cannot_be_compared_are_refused(clip_folder):
    (metric,) = load_metrics(["clip_similarity"], MetricWeights(clip=str(clip_folder)), CPU).picture_metrics
    with pytest.raises(UserError, match="32×32 pixels, its true view 20×20"):
        metric.score(pictures(1, 32), pictures(1, 20))
    with pytest.raises(ValueError, match="uint8"):
        metric.score([np.full((32, 32, 3), np.nan)], pictures(1, 32))


@pytest.mark.parametrize("clip", ["", "some/model-that-is-not-cached"])
def test_a_missing_model_is_named(clip, tmp_path, monkeypatch):
    loaded = load_metrics(["clip_similarity", "mse", "clip_fid"], MetricWeights(clip=clip, download=False), CPU)
    assert [one.name for one in loaded.picture_metrics] == ["mse"] and not loaded.set_metrics
    for name, sentence in zip(("clip_similarity", "clip_fid"), loaded.missing, strict=True):
        assert sentence.startswith(f"{name}: ") and "weights.clip=" in sentence


def test_a_folder_of_something_else_is_refused(tmp_path):
    for folder in (tmp_path / "absent", tmp_path):
        with pytest.raises(UserError, match=f"weights.clip={folder}"):
            load_metrics(["clip_similarity"], MetricWeights(clip=str(folder)), CPU)
