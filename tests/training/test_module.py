import math

import pytest
import torch

from tests.training.conftest import SMALL
from training.config import FinetuneConfig, OptimizerConfig, TrainerConfig
from training.data import Split
from training.ema import Ema, decay_after
from training.module import Finetuning, lr_factor

CONFIG = FinetuneConfig(model=SMALL, optimizer=OptimizerConfig(lr=2e-4), trainer=TrainerConfig(max_steps=50))


def test_averaging_warms_up_as_the_originals():
    assert [decay_after(n, 0.9999) for n in (1, 2, 90)] == pytest.approx([2 / 11, 3 / 12, 91 / 100])
    assert decay_after(10**6, 0.9999) == 0.9999
    assert decay_after(1, 0.1) == 0.1


def test_average_by_hand(model):
    ema = Ema(model.unet, 0.9999)
    with torch.no_grad():
        model.unet.conv_in.weight.copy_(torch.ones_like(model.unet.conv_in.weight))
        ema.shadow.conv_in.weight.zero_()
    ema.update(model.unet)  # 0 + (1 - 2/11)·1
    ema.update(model.unet)  # 9/11 + (1 - 3/12)·(1 - 9/11)
    expected = 9 / 11 + 0.75 * 2 / 11
    assert ema.shadow.conv_in.weight.flatten()[0].item() == pytest.approx(expected, rel=1e-6)
    assert ema.updates.item() == 2
    assert not any(p.requires_grad for p in ema.shadow.parameters())


def test_the_average_takes_the_models_place_and_gives_it_back(model):
    ema, trained = Ema(model.unet, 0.9), model.unet
    with pytest.raises(KeyError), ema.applied(model) as averaged:
        assert averaged.unet is ema.shadow
        raise KeyError
    assert model.unet is trained


def test_the_average_is_part_of_the_training_state(model):
    module = Finetuning(model, Split((), ()), CONFIG)
    module.ema.update(model.unet)
    state = module.state_dict()
    assert state["ema.updates"].item() == 1
    assert torch.equal(state["ema.shadow.conv_in.weight"], module.ema.shadow.conv_in.weight)


def test_learning_rates(model):
    made = Finetuning(model, Split((), ()), CONFIG).configure_optimizers()
    unet, projection = made["optimizer"].param_groups
    assert (unet["initial_lr"], projection["initial_lr"]) == (2e-4, pytest.approx(2e-3))
    assert unet["weight_decay"] == projection["weight_decay"] == 0.01
    assert {id(p) for p in unet["params"]} == {id(p) for p in model.unet.parameters()}
    assert {id(p) for p in projection["params"]} == {id(p) for p in model.cc_projection.parameters()}
    assert unet["lr"] == pytest.approx(2e-4 / 100)  # the first of 100 warm-up steps


def test_lr_factor():
    assert [lr_factor(s, 100, 0, 1000) for s in (0, 49, 99, 100, 999)] == pytest.approx([0.01, 0.5, 1, 1, 1])
    decayed = [lr_factor(s, 0, 400, 1000) for s in (599, 600, 800, 1000)]
    assert decayed == pytest.approx([1, 1, 0.5, 0])
    assert lr_factor(700, 0, 400, 1000) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))


def test_every_step_draws_from_a_generator_of_its_own(model):
    module = Finetuning(model, Split((), ()), CONFIG)
    draws = [torch.rand(1, generator=g).item() for g in map(module.generator, (0, 1, 0))]
    assert draws[0] == draws[2] != draws[1]
    assert torch.rand(1, generator=module.generator(0, validation=True)).item() != draws[0]
