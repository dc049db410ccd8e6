"""The moving average of the U-Net's weights, which is what a checkpoint folder holds."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor


class Ema:
    """A float32 shadow of a U-Net that follows it slowly; of this device's share of the weights under ZeRO-3.

    It is no module, so no strategy casts, shards or broadcasts it.
    """

    def __init__(self, unet: UNet2DConditionModel, decay: float) -> None:
        self.unet, self.decay = unet, decay
        self.updates = 0
        self.shadow: list[Tensor] = []

    def begin(self) -> None:
        """Start from the weights as they are, or continue what was loaded; call it once they lie on their device."""
        if self.shadow:
            pairs = zip(self.shadow, self._weights(), strict=True)
            # In the memory layout of the weights, which may be another one than when they were saved.
            self.shadow = [torch.empty_like(weight, dtype=torch.float32).copy_(shadow) for shadow, weight in pairs]
        else:
            self.shadow = [weight.detach().clone().float() for weight in self._weights()]

    @torch.no_grad()
    def update(self) -> None:
        """shadow += (1 - decay)·(weight - shadow), with the warm-up of the original's LitEma."""
        self.updates += 1
        torch._foreach_lerp_(self.shadow, self._weights(), 1 - decay_after(self.updates, self.decay))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The averaged weights in the U-Net itself, and the ones that are being trained back afterwards."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def state(self) -> dict[str, Any]:
        return {"updates": self.updates, "shadow": self.shadow}

    def load(self, state: dict[str, Any]) -> None:
        self.updates, self.shadow = state["updates"], state["shadow"]

    def _weights(self) -> list[Tensor]:
        # Under ZeRO-3 a weight is empty between passes, and `ds_tensor` is this device's share of it.
        return [getattr(weight, "ds_tensor", weight).data for weight in self.unet.parameters()]

    @torch.no_grad()
    def _swap(self) -> None:
        for shadow, weight in zip(self.shadow, self._weights(), strict=True):
            trained = weight.clone()
            weight.copy_(shadow)
            shadow.copy_(trained)


def decay_after(updates: int, decay: float) -> float:
    """min(decay, (1 + n) / (10 + n)): the first updates forget the random start quickly."""
    return min(decay, (1 + updates) / (10 + updates))
