"""Classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598) over what the model is told."""

from collections.abc import Callable

import torch
from torch import Tensor

from training.model.zero123 import Zero123

Denoiser = Callable[[Tensor, Tensor], Tensor]  # (noisy [B, C, h, w], timesteps [B]) -> ε [B, C, h, w]


def guided(
    model: Zero123,
    context: Tensor,
    condition: Tensor,
    scale: float,
    image_scale: float | None = None,
    null_context: Tensor | None = None,
) -> Denoiser:
    """ε(∅, ∅) + image_scale·(ε(I, ∅) - ε(∅, ∅)) + scale·(ε(I, P) - ε(I, ∅)).

    P is the posed token `context` `[B, 1, D]`, I the picture's latent `condition` `[B, C, h, w]`: two scales as in
    InstructPix2Pix (arXiv 2211.09800, equation 3). Without `image_scale` both have the same, ε(I, ∅) drops out, and
    scale 1 is no guidance. The null latent is zero. The null token is `null_context`, or zeros *after*
    `cc_projection`, as in the original's inference.
    """
    null = torch.zeros_like(context) if null_context is None else null_context
    nothing = torch.zeros_like(condition)
    separate = image_scale is not None and image_scale != scale

    def predict_noise(noisy: Tensor, timesteps: Tensor) -> Tensor:
        if scale == 1 and not separate:
            return model.predict_noise(noisy, timesteps, context, condition)
        rows = 3 if separate else 2
        predicted = model.predict_noise(
            noisy.repeat(rows, 1, 1, 1),
            timesteps.repeat(rows),
            torch.cat([null, null, context] if separate else [null, context]),
            torch.cat([nothing, condition, condition] if separate else [nothing, condition]),
        ).chunk(rows)
        if image_scale is None or not separate:
            return predicted[0] + scale * (predicted[1] - predicted[0])
        neither, image, both = predicted
        return neither + image_scale * (image - neither) + scale * (both - image)

    return predict_noise
