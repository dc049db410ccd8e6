"""AdamW with the two learning rates of the original implementation, and their schedule."""

import math

import torch
from torch.optim.lr_scheduler import LambdaLR

from training.config import OptimizerConfig
from training.model.zero123 import Zero123

CC_PROJECTION_LR = 10  # learning rate of cc_projection, as a multiple of that of the U-Net


def adamw(model: Zero123, options: OptimizerConfig, fused: bool = True) -> torch.optim.AdamW:
    """Return AdamW over the trained weights, in two parameter groups.

    `cc_projection` has a group of its own; the other holds the U-Net, and the image encoder where it is trained.

    Args:
        model: The model to train.
        options: Learning rate and weight decay.
        fused: Update all weights in one kernel.
    """
    parts = (model.unet, model.image_encoder)
    return torch.optim.AdamW(
        [
            {"params": [p for part in parts for p in part.parameters() if p.requires_grad], "lr": options.lr},
            {"params": list(model.cc_projection.parameters()), "lr": CC_PROJECTION_LR * options.lr},
        ],
        weight_decay=options.weight_decay,
        fused=fused or None,
    )


def match_memory_layout(optimizer: torch.optim.Optimizer) -> None:
    """Give AdamW's moments the memory layout of their weights.

    Moments from a checkpoint have the layout of the run that saved it, which may differ on another device or with
    another `trainer.compile`. The fused kernel pairs weights and moments by memory offset.
    """
    for weight, state in optimizer.state.items():
        for name, moment in state.items():
            if moment.shape == weight.shape and moment.stride() != weight.stride():
                state[name] = torch.empty_like(weight.detach()).copy_(moment)


def set_learning_rates(schedule: LambdaLR) -> None:
    """Set the rates of the next step. Those of a checkpoint are from the schedule of a run of another length."""
    groups = schedule.optimizer.param_groups
    for group, base, factor in zip(groups, schedule.base_lrs, schedule.lr_lambdas, strict=True):
        group["lr"] = base * factor(schedule.last_epoch)


def lr_factor(step: int, warmup: int, decay: int, steps: int) -> float:
    """Return the factor on the learning rate: linear warm-up, constant, cosine decay to zero.

    Args:
        step: Optimiser step, counted from 0.
        warmup: Steps of the warm-up.
        decay: Steps of the decay, the last ones of the run.
        steps: Steps of the run.
    """
    if step < warmup:
        return (step + 1) / warmup
    remaining = steps - step
    return 1.0 if remaining >= decay else 0.5 * (1 - math.cos(math.pi * remaining / decay))
