"""The shortcut for one context token computes the same function as attention."""

import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock

from tests.support.small_model import SMALL, loss_and_gradients
from training.model.architecture import build
from training.model.attention import OneTokenAttention, attend_to_one_token, idle_parts


def test_shortcut_has_equal_outputs_and_gradients():
    model = build(SMALL).double()
    assert any(isinstance(p, OneTokenAttention) for p in model.unet.attn_processors.values()), "what is trained has it"
    with torch.no_grad():  # zero biases would hide a missing output projection
        for parameter in model.unet.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)), alpha=0.05)
    short, gradients = loss_and_gradients(model)
    attend_to_one_token(model.unet, shortcut=False)
    general, all_gradients = loss_and_gradients(model)
    assert short == pytest.approx(general, rel=1e-12)
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, all_gradients[name], rtol=1e-9, atol=1e-14), name
    idle = all_gradients.keys() - gradients.keys()
    assert idle and all(all_gradients[name].abs().max() < 1e-15 for name in idle)


def test_only_queries_keys_and_their_norm_are_not_trained(model):
    idle = {
        id(parameter)
        for block in model.unet.modules()
        if isinstance(block, BasicTransformerBlock)
        for part in idle_parts(block)
        for parameter in part.parameters()
    }
    assert len(idle) == 4 * len([b for b in model.unet.modules() if isinstance(b, BasicTransformerBlock)])
    assert {id(p) for p in model.unet.parameters() if not p.requires_grad} == idle
    attend_to_one_token(model.unet, shortcut=False)
    assert all(p.requires_grad for p in model.unet.parameters())


def test_several_context_tokens_fail_an_assertion(model):
    with pytest.raises(AssertionError, match="one context token"):
        model.unet(torch.zeros(1, 24, 8, 8), 3, encoder_hidden_states=torch.zeros(1, 2, 16))
