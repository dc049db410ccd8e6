"""Ablated models ignore a part of the conditioning before and after training, and learn the others."""

from dataclasses import replace

import pytest
import torch

from tests.support.small_model import SMALL, mean_loss, random_pairs
from training.config import OptimizerConfig
from training.model.architecture import build
from training.model.checkpoints import checkpoint
from training.model.config import Conditioning
from training.model.zero123 import Zero123
from training.optimization.optimizer import adamw

OPTIMIZER = OptimizerConfig(lr=0.01, weight_decay=0.1)


def trained(without: list[Conditioning]) -> Zero123:
    model = build(replace(SMALL, without=without, train_image_encoder=True))
    optimizer, generator = adamw(model, OPTIMIZER, fused=False), torch.Generator().manual_seed(0)
    for _ in range(3):
        optimizer.zero_grad()
        mean_loss(model, random_pairs(4, 16), generator).backward()
        optimizer.step()
    return model


def effects(model: Zero123) -> dict[Conditioning, bool]:
    """Return whether each part of the conditioning changes the prediction."""
    g = torch.Generator().manual_seed(1)
    noisy, latents = torch.randn(1, 12, 8, 8, generator=g), torch.randn(2, 1, 12, 8, 8, generator=g)
    embeddings, poses = torch.randn(2, 1, 16, generator=g), torch.randn(2, 1, 4, generator=g)

    @torch.no_grad()
    def predict(embedding: int = 0, pose: int = 0, latent: int = 0) -> torch.Tensor:
        context = model.context(embeddings[embedding], poses[pose])
        return model.predict_noise(noisy, torch.tensor([500]), context, latents[latent])

    plain = predict()
    others = {
        Conditioning.embedding: predict(embedding=1),
        Conditioning.pose: predict(pose=1),
        Conditioning.concat: predict(latent=1),
    }
    return {part: not torch.equal(other, plain) for part, other in others.items()}


@pytest.mark.parametrize("without", [[], *([part] for part in Conditioning), [Conditioning.pose, Conditioning.concat]])
def test_the_ablated_parts_have_no_effect_and_the_others_have(without, tmp_path):
    model = trained(without)
    expected = {part: part not in without for part in Conditioning}
    assert effects(model) == expected
    checkpoint.save(model, tmp_path / "model")
    assert effects(checkpoint.load(tmp_path / "model")) == expected
