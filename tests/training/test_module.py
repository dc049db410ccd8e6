from dataclasses import replace

import lightning as L
import pytest
import torch

from tests.support.small_model import SMALL
from training.config import FinetuneConfig, OptimizerConfig, TrainerConfig
from training.data.data_module import PairData
from training.data.split import Split
from training.distributed.topology import BatchPlan
from training.module import Finetuning, batch_seed
from training.optimization.ema import Ema, decay_after

CONFIG = FinetuneConfig(model=SMALL, optimizer=OptimizerConfig(lr=2e-4), trainer=TrainerConfig(max_steps=50))


def test_ema_warms_up_as_in_the_original():
    assert [decay_after(n, 0.9999) for n in (1, 2, 90)] == pytest.approx([2 / 11, 3 / 12, 91 / 100])
    assert decay_after(10**6, 0.9999) == 0.9999
    assert decay_after(1, 0.1) == 0.1


def test_ema_matches_hand_computed_values(model):
    ema, weight = Ema([model.unet], 0.9999), model.unet.conv_in.weight
    with torch.no_grad():
        weight.zero_()
        ema.begin()
        weight.fill_(1)
    ema.update()  # 0 + (1 - 2/11)·1
    ema.update()  # 9/11 + (1 - 3/12)·(1 - 9/11)
    expected = 9 / 11 + 0.75 * 2 / 11
    with ema.applied():
        assert weight.flatten().tolist() == pytest.approx([expected] * weight.numel(), rel=1e-6)
    assert (weight == 1).all() and ema.updates == 2


def test_trained_weights_are_restored_after_an_error(model):
    ema, weight = Ema([model.unet], 0.9), model.unet.conv_in.weight
    ema.begin()
    trained = weight.detach().clone() + 1
    with torch.no_grad():
        weight.copy_(trained)
    with pytest.raises(KeyError), ema.applied():
        assert not torch.equal(weight, trained)
        raise KeyError
    assert torch.equal(weight, trained)


def test_ema_continues_from_a_checkpoint(model):
    module = Finetuning(model, PairData(CONFIG, Split((), ()), 16), CONFIG, BatchPlan(4, 1), torch.float32)
    module.trainer = L.Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)
    module.ema.begin()
    with torch.no_grad():
        model.unet.conv_in.weight.add_(1)
    module.ema.update()
    progress = {name: dict.fromkeys(("ready", "started", "processed", "completed"), 7) for name in ("total", "current")}
    loops = {"fit_loop": {"epoch_loop.batch_progress": progress}}
    saved = {"state_dict": module.state_dict(), "global_step": 7, "loops": loops}
    module.on_save_checkpoint(saved)
    assert {name.split(".")[1] for name in saved["state_dict"]} == {"unet", "cc_projection"}, "not what is frozen"
    again = Finetuning(model, PairData(CONFIG, Split((), ()), 16), CONFIG, BatchPlan(2, 2), torch.float32)
    again.on_load_checkpoint(saved)
    assert {*progress["total"].values(), *progress["current"].values()} == {14}, "steps of two passes"
    again.ema.begin()
    assert again.ema.updates == 1
    assert all(torch.equal(a, b) for a, b in zip(again.ema.shadow, module.ema.shadow, strict=True))


def test_optimiser_and_average_are_built_from_their_options(model):
    config = replace(CONFIG, optimizer=OptimizerConfig(lr=2e-4, weight_decay=0.03, warmup_steps=50, ema_decay=0.99))
    module = Finetuning(model, PairData(config, Split((), ()), 16), config, BatchPlan(4, 1), torch.float32)
    optimizer = module.configure_optimizers()["optimizer"]
    assert type(optimizer) is torch.optim.AdamW
    first = [(pytest.approx(2e-4 / 50), 0.03), (pytest.approx(2e-3 / 50), 0.03)]  # the first of 50 warm-up steps
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == first
    assert module.ema.decay == 0.99 and module.ema.modules == [model.unet]


def test_every_batch_has_its_own_seed():
    words = [(seed, number, validation) for seed in (0, 1) for number in range(50) for validation in (False, True)]
    assert len({batch_seed(*word) for word in words}) == len(words)
    assert batch_seed(3, 7, False) == batch_seed(3, 7, False)
