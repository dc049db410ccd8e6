"""The context token in the residual blocks: it changes the prediction, is trained, saved, and refused elsewhere."""

import json
from dataclasses import replace

import pytest
import torch

from conf.options import UserError
from tests.support.small_model import SMALL, mean_loss, random_pairs
from training.model.architecture import build
from training.model.attention import attend_to_one_token
from training.model.checkpoints import checkpoint
from training.model.checkpoints.ldm_export import save_original
from training.model.hardware.cost import unet_flops
from training.model.zero123 import Zero123

MODULATED = replace(SMALL, unet=replace(SMALL.unet, modulation=True))


@pytest.fixture
def modulated() -> Zero123:
    return build(MODULATED)


def without_cross_attention(model: Zero123) -> Zero123:
    attend_to_one_token(model.unet)
    for name, weight in model.unet.named_parameters():
        if "attn2.to_out" in name:
            weight.data.zero_()
    return model


@pytest.mark.parametrize("modulation", [False, True])
def test_the_token_reaches_the_residual_blocks(modulation):
    """Without cross-attention, only modulation is left for the token to have an effect."""
    model = without_cross_attention(build(replace(SMALL, unet=replace(SMALL.unet, modulation=modulation))))
    noisy, condition = torch.randn(2, 1, 12, 8, 8, generator=torch.Generator().manual_seed(0))
    tokens = torch.randn(2, 1, 1, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        first, second = (model.predict_noise(noisy, torch.tensor([500]), token, condition) for token in tokens)
    assert torch.equal(first, second) is not modulation


def test_the_pose_is_trained_through_the_residual_blocks(modulated):
    mean_loss(without_cross_attention(modulated), random_pairs(4, 16), torch.Generator().manual_seed(0)).backward()
    gradient = modulated.cc_projection.projection.weight.grad
    assert gradient[:, 16:].abs().sum(0).gt(0).all()  # every number of the pose vector


def test_round_trip(modulated, tmp_path):
    checkpoint.save(modulated, tmp_path / "model")
    pairs = random_pairs(3, 16)
    losses = [
        mean_loss(m, pairs, torch.Generator().manual_seed(0)) for m in (modulated, checkpoint.load(tmp_path / "model"))
    ]
    assert torch.equal(*losses)
    assert unet_flops(modulated.unet) > unet_flops(build(SMALL).unet)


def test_other_layouts_and_other_class_embeddings_are_refused(modulated, tmp_path):
    with pytest.raises(UserError):
        save_original(modulated, tmp_path / "model.ckpt")
    assert not list(tmp_path.iterdir())
    checkpoint.save(modulated, tmp_path / "model")
    config = tmp_path / "model/unet/config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "class_embed_type": "timestep"}))
    with pytest.raises(UserError, match="class_embed_type"):
        checkpoint.load(tmp_path / "model")
