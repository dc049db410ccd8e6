"""Ablate the conditioning: the model ignores a part of it, in training and in sampling."""

from collections.abc import Iterable

import torch
from torch import Tensor

from training.model.conditioning import POSE_DIM
from training.model.config import Conditioning
from training.model.zero123 import Zero123


def ablate(model: Zero123, without: Iterable[Conditioning]) -> None:
    """Set the weights that read parts of the conditioning to zero, where training leaves them.

    The checkpoint needs no record of it: samplers pass the whole conditioning, and the model ignores these parts.

    Args:
        model: A model to train.
        without: `pose` and `embedding` are columns of `cc_projection`, `concat` is the second half of the input
            channels of the U-Net.
    """
    for part in without:
        match part:
            case Conditioning.pose:
                _freeze_at_zero(model.cc_projection.projection.weight, slice(-POSE_DIM, None))
            case Conditioning.embedding:
                _freeze_at_zero(model.cc_projection.projection.weight, slice(None, -POSE_DIM))
            case Conditioning.concat:
                _freeze_at_zero(model.unet.conv_in.weight, slice(model.latent_channels, None))


def _freeze_at_zero(weight: Tensor, columns: slice) -> None:
    """Set columns of a weight to zero, and their gradients, so that AdamW does not change them."""
    with torch.no_grad():
        weight[:, columns] = 0

    def without_columns(gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        gradient[:, columns] = 0
        return gradient

    weight.register_hook(without_columns)
