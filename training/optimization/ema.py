"""The exponential moving average of trained weights, which checkpoint folders hold."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Ema:
    """A float32 moving average of the weights of modules; under ZeRO-3, of the weights' shards on this device.

    It is not an `nn.Module`, so that no strategy casts, shards or broadcasts it.

    Args:
        modules: The U-Net, as in the original, and the image encoder where it is trained.
        decay: Weight of the past in each update.
    """

    def __init__(self, modules: Sequence[nn.Module], decay: float) -> None:
        self.modules, self.decay = modules, decay
        self.updates = 0
        self.shadow: list[Tensor] = []

    def begin(self) -> None:
        """Start from the current weights, or from a loaded state. Call it when the weights are on their device."""
        if self.shadow:
            pairs = zip(self.shadow, self._weights(), strict=True)
            # A loaded average may have another memory layout than the weights have now.
            self.shadow = [torch.empty_like(weight, dtype=torch.float32).copy_(shadow) for shadow, weight in pairs]
        else:
            self.shadow = [weight.detach().clone().float() for weight in self._weights()]

    @torch.no_grad()
    def update(self) -> None:
        """Compute shadow += (1 - decay)·(weight - shadow), with the warm-up of the original's `LitEma`."""
        self.updates += 1
        torch._foreach_lerp_(self.shadow, self._weights(), 1 - decay_after(self.updates, self.decay))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averaged weights into the modules; restore the trained weights on exit."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"updates": self.updates, "shadow": self.shadow}

    def load(self, state: dict[str, Any]) -> None:
        """Load the state from a checkpoint."""
        self.updates, self.shadow = state["updates"], state["shadow"]

    def _weights(self) -> list[Tensor]:
        # Under ZeRO-3 a weight is empty between passes, and `ds_tensor` is its shard on this device.
        weights = (weight for module in self.modules for weight in module.parameters())
        return [getattr(weight, "ds_tensor", weight).data for weight in weights]

    @torch.no_grad()
    def _swap(self) -> None:
        for shadow, weight in zip(self.shadow, self._weights(), strict=True):
            trained = weight.clone()
            weight.copy_(shadow)
            shadow.copy_(trained)


def decay_after(updates: int, decay: float) -> float:
    """Return min(decay, (1 + n) / (10 + n)) for n updates, which gives the random start little weight."""
    return min(decay, (1 + updates) / (10 + updates))
