"""Defaults of the commands against the numbers of the paper's run.

`test_ldm_names.py` compares the arithmetic with the original's code.
"""

import inspect

import torch

from inference.config import Sampling
from training.config import OptimizerConfig, SampleConfig
from training.model.autoencoder import stable_diffusion_autoencoder
from training.model.config import Architecture
from training.model.ddim import novel_views
from training.model.zero123 import CONDITIONING_DROP, Zero123, noise_schedule
from training.optimization.optimizer import CC_PROJECTION_LR


def test_optimiser_defaults_are_those_of_the_paper():
    options = OptimizerConfig()
    assert (options.lr, options.weight_decay, options.warmup_steps, options.ema_decay) == (1e-4, 0.01, 100, 0.9999)
    assert (options.decay, options.clip_norm, CC_PROJECTION_LR) == (0, 0, 10)


def test_objective_is_that_of_the_paper():
    assert Architecture().prediction == noise_schedule().config["prediction_type"] == "epsilon"
    assert CONDITIONING_DROP == 0.05
    for loss in (Zero123.losses, Zero123.latent_losses):
        assert inspect.signature(loss).parameters["drop"].default == CONDITIONING_DROP
    with torch.device("meta"):
        assert stable_diffusion_autoencoder().config["scaling_factor"] == 0.18215


def test_sampling_defaults_are_those_of_the_paper():
    for options in (Sampling(), SampleConfig()):
        assert (options.steps, options.guidance, options.eta) == (50, 3, 1)
    defaults = {name: parameter.default for name, parameter in inspect.signature(novel_views).parameters.items()}
    assert (defaults["steps"], defaults["guidance"], defaults["eta"]) == (50, 3, 1)
