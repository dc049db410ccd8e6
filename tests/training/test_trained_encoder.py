"""The image encoder where it is trained: it learns, is averaged, saved and resumed; it stays frozen elsewhere."""

import itertools
from dataclasses import replace

import lightning as L
import pytest
import torch

from conf.options import UserError
from tests.support.finetune import configured, train
from tests.support.small_model import SMALL, mean_loss, random_pairs
from tests.support.small_run import SMALL as SMALL_RUN
from training.callbacks.checkpointing import Stopped
from training.callbacks.sample_grid import SampleGrid
from training.config import DataConfig, DataKind, FinetuneConfig, OptimizerConfig, SampleConfig
from training.data.data_module import PairData
from training.data.split import Split
from training.distributed.topology import BatchPlan
from training.model.architecture import build
from training.model.checkpoints import checkpoint
from training.model.hardware.memory import estimate
from training.module import Finetuning
from training.optimization.optimizer import adamw
from training.train import train as run

TRAINED = replace(SMALL, train_image_encoder=True)


@pytest.mark.parametrize("architecture", [SMALL, TRAINED])
def test_gradients_reach_the_encoder_only_where_it_is_trained(architecture):
    model = build(architecture)
    mean_loss(model, random_pairs(8, 16), torch.Generator().manual_seed(0), drop=0).backward()
    gradients = [weight.grad for weight in model.image_encoder.parameters()]
    assert all(
        (gradient is not None and bool(gradient.any())) is architecture.train_image_encoder for gradient in gradients
    )
    optimised = {weight for group in adamw(model, OptimizerConfig()).param_groups for weight in group["params"]}
    assert optimised == {weight for weight in model.parameters() if weight.requires_grad}


def test_memory_of_the_trained_encoder_is_that_of_other_trained_weights():
    frozen, trained = (estimate(build(a), 4) for a in (SMALL, TRAINED))
    size = sum(weight.numel() for weight in build(SMALL).image_encoder.parameters())
    assert frozen.frozen - trained.frozen == 4 * size
    assert trained.moments - frozen.moments == 8 * size and trained.average - frozen.average == 4 * size


def test_a_resumed_run_equals_an_uninterrupted_one(dots, tmp_path):
    words = ("model.train_image_encoder=true", "trainer.max_steps=6")
    train(dots, tmp_path / "whole", *words)
    calls = itertools.count(1)
    with pytest.raises(Stopped):
        run(
            configured(f"data.path={dots}", f"output={tmp_path / 'half'}", *SMALL_RUN, "wandb.mode=disabled", *words),
            lambda: next(calls) == 3,
        )
    train(dots, tmp_path / "half", *words)
    whole, half = (checkpoint.load(tmp_path / name / "model").state_dict() for name in ("whole", "half"))
    assert all(torch.equal(whole[name], half[name]) for name in whole)

    train(dots, tmp_path / "frozen", "trainer.max_steps=6")
    frozen = checkpoint.load(tmp_path / "frozen/model").image_encoder.state_dict()
    learned = checkpoint.load(tmp_path / "whole/model").image_encoder.state_dict()
    assert not all(torch.equal(frozen[name], learned[name]) for name in frozen)


@pytest.mark.parametrize("architecture", [SMALL, TRAINED])
def test_sample_images_are_drawn_without_gradients(architecture, tmp_path):
    config = FinetuneConfig(model=architecture)
    model, seen = build(architecture), []
    model.image_encoder.register_forward_hook(lambda _, __, output: seen.append(output.image_embeds.requires_grad))
    module = Finetuning(model, PairData(config, Split((), ()), 16), config, BatchPlan(4, 1), torch.float32)
    module.ema.begin()
    trainer = L.Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)
    SampleGrid(tmp_path, random_pairs(2, 16), SampleConfig(steps=1), 0).on_train_end(trainer, module)
    assert seen == [False] and len(list(tmp_path.iterdir())) == 1


def test_latents_are_refused():
    data = DataConfig(path="latents", kind=DataKind.latents)
    with pytest.raises(UserError, match="train_image_encoder"):
        FinetuneConfig(data=data, model=TRAINED)
