"""Detect a diverged run: a loss or a weight that is not finite."""

import lightning as L
import torch

from conf.options import UserError
from training.module import Finetuning


def require_finite_weights(trainer: L.Trainer, module: Finetuning) -> None:
    """Check all trained weights before they are written. Every rank must call it.

    Raises:
        UserError: A weight on any rank is infinite or NaN.
    """
    weights = [getattr(w, "ds_tensor", w).detach() for w in module.parameters() if w.requires_grad]
    finite = bool(torch.nn.utils.get_total_norm(weights, foreach=True).isfinite())
    if not trainer.strategy.reduce_boolean_decision(finite, all=True):
        raise divergence_error(trainer, module)


def divergence_error(trainer: L.Trainer, module: Finetuning) -> UserError:
    """Return the error for a run whose loss or weights are no longer finite."""
    return UserError(
        f"output={module.config.output}: at step {trainer.global_step} the loss or a weight is not finite, and nothing "
        "was saved since it became so; start a new output with a lower optimizer.lr or with optimizer.clip_norm=1, "
        "from model.pretrained=<this output>/best if that exists"
    )
