"""Detect a diverged run: a loss or a weight that is not finite."""

from typing import Any

import lightning as L
import torch
from torch import Tensor

from conf.options import UserError
from training.module import Finetuning


def require_finite_weights(trainer: L.Trainer, module: Finetuning) -> None:
    """Check all trained weights before they are written. Every rank must call it.

    Raises:
        UserError: A weight on any rank is infinite or NaN.
    """
    weights = [_own_part(w, trainer.global_rank) for w in module.parameters() if w.requires_grad]
    finite = bool(torch.nn.utils.get_total_norm(weights, foreach=True).isfinite())
    if not trainer.strategy.reduce_boolean_decision(finite, all=True):
        raise divergence_error(trainer, module)


def _own_part(weight: Any, rank: int) -> Tensor:
    """Return the numbers of a weight that this rank holds; a shard of ZeRO-3 ends in padding without values."""
    if not hasattr(weight, "ds_tensor"):
        return weight.detach()
    shard = weight.ds_tensor.detach()
    return shard[: max(0, weight.ds_numel - rank * shard.numel())]


def divergence_error(trainer: L.Trainer, module: Finetuning) -> UserError:
    """Return the error for a run whose loss or weights are no longer finite."""
    return UserError(
        f"output={module.config.output}: at step {trainer.global_step} the loss or a weight is not finite, and nothing "
        "was saved since it became so; start a new output with a lower optimizer.lr or with optimizer.clip_norm=1, "
        "from model.pretrained=<this output>/best if that exists"
    )
