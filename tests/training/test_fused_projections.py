"""Fused and split matrix products give equal losses, gradients and weights."""

import pytest
import torch
from diffusers.models.activations import GEGLU
from diffusers.models.attention_processor import AttnProcessor2_0

from tests.support.small_model import SMALL, loss_and_gradients
from training.model.architecture import build
from training.model.fused_projections import FusedSelfAttention, SplitGEGLU, fuse_projections


def test_losses_gradients_and_weights_stay_the_same():
    model = build(SMALL).double()
    with torch.no_grad():  # zero biases would hide a missing bias
        for parameter in model.unet.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)), alpha=0.05)
    names = model.unet.state_dict().keys()
    loss, gradients = loss_and_gradients(model)
    fuse_projections(model.unet)
    assert model.unet.state_dict().keys() == names
    cut_loss, cut_gradients = loss_and_gradients(model)
    assert cut_loss == pytest.approx(loss, rel=1e-12) and cut_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, cut_gradients[name], rtol=1e-9, atol=1e-14), name


def test_fusing_and_unfusing_restores_every_block(model):
    def kinds() -> list[tuple[type, type]]:
        blocks = [module for module in model.unet.modules() if hasattr(module, "attn1")]
        return [(type(block.attn1.processor), type(block.ff.net[0])) for block in blocks]

    fuse_projections(model.unet)
    assert set(kinds()) == {(FusedSelfAttention, SplitGEGLU)}
    fuse_projections(model.unet, enabled=False)
    assert set(kinds()) == {(AttnProcessor2_0, GEGLU)}


@pytest.mark.parametrize("layer", ["attn1.to_v", "ff.net.0.proj"])
def test_adapters_on_fused_projections_fail_an_assertion(model, layer):
    class Adapted(torch.nn.Linear):
        """As LoRA's: the weight of the layer that it wraps is there to be read."""

    fuse_projections(model.unet)
    block = next(module for module in model.unet.modules() if hasattr(module, "attn1"))
    plain = block.get_submodule(layer)
    block.set_submodule(layer, Adapted(plain.in_features, plain.out_features, bias=plain.bias is not None))
    given = torch.zeros(1, 24, 8, 8), 3
    with pytest.raises(AssertionError, match="before adapters are added"):
        model.unet(*given, encoder_hidden_states=torch.zeros(1, 1, 16))
    fuse_projections(model.unet, enabled=False)
    model.unet(*given, encoder_hidden_states=torch.zeros(1, 1, 16))
