"""AdamW with the original's two learning rates, and how they rise and fall."""

import math

import torch

from training.config import OptimizerConfig
from training.model.zero123 import Zero123

CC_PROJECTION_LR = 10  # times the learning rate of the U-Net


def adamw(model: Zero123, options: OptimizerConfig, fused: bool = True) -> torch.optim.AdamW:
    """AdamW over what learns, `cc_projection` in a group of its own; one kernel for all weights where `fused`."""
    return torch.optim.AdamW(
        [
            {"params": [p for p in model.unet.parameters() if p.requires_grad], "lr": options.lr},
            {"params": list(model.cc_projection.parameters()), "lr": CC_PROJECTION_LR * options.lr},
        ],
        weight_decay=options.weight_decay,
        fused=fused or None,
    )


def lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Give the moments the memory layout of their weights. Those from a checkpoint have the layout of the run that
    saved it, which another device or `trainer.compile` changes, and the fused kernel pairs numbers by their place."""
    for weight, state in optimizer.state.items():
        for name, moment in state.items():
            if moment.shape == weight.shape and moment.stride() != weight.stride():
                state[name] = torch.empty_like(weight.detach()).copy_(moment)


def lr_factor(step: int, warmup: int, decay: int, steps: int) -> float:
    """What the learning rate is multiplied by at a step counted from 0: up along a line, and down along a
    cosine over the last `decay` of all steps."""
    if step < warmup:
        return (step + 1) / warmup
    left = steps - step
    return 1.0 if left >= decay else 0.5 * (1 - math.cos(math.pi * left / decay))
