"""The moving average of the U-Net's weights, which is what a checkpoint folder holds."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from training.model.zero123 import Zero123


class Ema(nn.Module):
    """A shadow of a U-Net that follows it slowly; part of the training state, hence of its checkpoint."""

    updates: Tensor

    def __init__(self, unet: UNet2DConditionModel, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.shadow = copy.deepcopy(unet).eval().requires_grad_(False)
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))

    def train(self, mode: bool = True) -> "Ema":
        return self  # the shadow only ever evaluates

    @torch.no_grad()
    def update(self, unet: UNet2DConditionModel) -> None:
        """shadow += (1 - decay)·(weight - shadow), with the warm-up of the original's LitEma."""
        self.updates += 1
        decay = decay_after(int(self.updates), self.decay)
        torch._foreach_lerp_(list(self.shadow.parameters()), list(unet.parameters()), 1 - decay)

    @contextmanager
    def applied(self, model: Zero123) -> Iterator[Zero123]:
        """The model with the averaged U-Net in place of the one that is being trained."""
        trained = model.unet
        model.unet = self.shadow
        try:
            yield model
        finally:
            model.unet = trained


def decay_after(updates: int, decay: float) -> float:
    """min(decay, (1 + n) / (10 + n)): the first updates forget the random start quickly."""
    return min(decay, (1 + updates) / (10 + updates))
