"""Classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598) over image and pose."""

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
    """Return a denoiser with classifier-free guidance.

    ε(∅, ∅) + image_scale·(ε(I, ∅) - ε(∅, ∅)) + scale·(ε(I, P) - ε(I, ∅)), with I the condition latent and P the context
    token: two scales as in InstructPix2Pix (arXiv 2211.09800, equation 3). With equal scales ε(I, ∅) cancels; scale 1
    is no guidance. The null latent is zero.

    Args:
        model: Model whose noise prediction is guided.
        context: Context tokens P `[B, 1, D]`, of embedding and pose.
        condition: Condition latents I `[B, C, h, w]`.
        scale: Guidance scale.
        image_scale: Scale of the condition latent; None for `scale`.
        null_context: Null token; None for zeros *after* `cc_projection`, as in inference of the original.
    """
    null = torch.zeros_like(context) if null_context is None else null_context
    null_condition = torch.zeros_like(condition)
    separate = image_scale is not None and image_scale != scale

    def predict_noise(noisy: Tensor, timesteps: Tensor) -> Tensor:
        if scale == 1 and not separate:
            return model.predict_noise(noisy, timesteps, context, condition)
        rows = 3 if separate else 2
        predicted = model.predict_noise(
            noisy.repeat(rows, 1, 1, 1),
            timesteps.repeat(rows),
            torch.cat([null, null, context] if separate else [null, context]),
            torch.cat([null_condition, condition, condition] if separate else [null_condition, condition]),
        ).chunk(rows)
        if image_scale is None or not separate:
            return predicted[0] + scale * (predicted[1] - predicted[0])
        neither, image, both = predicted
        return neither + image_scale * (image - neither) + scale * (both - image)

    return predict_noise
