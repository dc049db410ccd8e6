import copy
import math

import pytest
import torch

from training.config import OptimizerConfig
from training.optimization.optimizer import adamw, lr_factor, match_memory_layout


@pytest.mark.parametrize("fused", [True, False])
def test_two_learning_rates_over_trained_weights_only(model, fused):
    optimizer = adamw(model, OptimizerConfig(lr=2e-4, weight_decay=0.03), fused)
    unet, projection = optimizer.param_groups
    assert (unet["lr"], projection["lr"]) == (2e-4, pytest.approx(2e-3))
    assert unet["weight_decay"] == projection["weight_decay"] == 0.03
    assert {id(p) for p in unet["params"]} == {id(p) for p in model.unet.parameters() if p.requires_grad}
    assert {id(p) for p in projection["params"]} == {id(p) for p in model.cc_projection.parameters()}
    assert bool(unet["fused"]) is fused


@pytest.mark.parametrize("fused", [True, False])
def test_first_adamw_step_matches_a_hand_computed_value(model, fused):
    """AdamW's first step is the learning rate times the sign of the gradient, after the weight decay."""
    weight = model.cc_projection.projection.weight
    before = weight.detach().clone()
    weight.grad = torch.where(torch.arange(weight.numel()).reshape(weight.shape) % 2 == 0, 0.5, -0.25)
    adamw(model, OptimizerConfig(lr=1e-3, weight_decay=0.1), fused).step()
    assert torch.allclose(weight, before * (1 - 1e-2 * 0.1) - 1e-2 * weight.grad.sign(), atol=1e-6)


def test_learning_rate_warms_up_and_decays():
    assert [lr_factor(s, 100, 0, 1000) for s in (0, 49, 99, 100, 999)] == pytest.approx([0.01, 0.5, 1, 1, 1])
    assert [lr_factor(s, 0, 400, 1000) for s in (599, 600, 800, 1000)] == pytest.approx([1, 1, 0.5, 0])
    assert lr_factor(700, 0, 400, 1000) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))


def test_moments_get_the_memory_layout_of_their_weights():
    """A fused step pairs elements by memory offset, so it would use the moments of other weights."""

    def fresh() -> tuple[torch.nn.Parameter, torch.optim.AdamW]:
        numbers = torch.arange(24.0).reshape(2, 3, 2, 2).contiguous(memory_format=torch.channels_last)
        weight = torch.nn.Parameter(numbers)
        return weight, torch.optim.AdamW([weight], lr=0.1, fused=True)

    def step(weight: torch.nn.Parameter, optimizer: torch.optim.AdamW, seed: int) -> None:
        weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed)).to(weight)
        weight.grad = torch.empty_like(weight).copy_(weight.grad)
        optimizer.step()

    (whole, first), (parts, second) = fresh(), fresh()
    step(whole, first, 0)
    saved = copy.deepcopy(first.state_dict())
    for name in ("exp_avg", "exp_avg_sq"):
        saved["state"][0][name] = saved["state"][0][name].contiguous()
    with torch.no_grad():
        parts.copy_(whole)
    second.load_state_dict(saved)
    match_memory_layout(second)
    assert second.state[parts]["exp_avg"].stride() == parts.stride()
    step(parts, second, 1)
    step(whole, first, 1)
    assert torch.equal(parts, whole)
