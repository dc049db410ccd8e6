"""Model of a few thousand weights, pairs for it, and its loss and gradients."""

import torch

from training.model.config import Architecture, ImageEncoderShape, UNetShape
from training.model.zero123 import CONDITIONING_DROP, Batch, Pairs, Zero123

SMALL = Architecture(
    resolution=16,
    patch=2,
    unet=UNetShape(channels=[16, 32], attention=[False, True], layers=1, heads=2, groups=8),
    encoder=ImageEncoderShape(image_size=16, patch_size=8, width=16, layers=1, heads=2, projection=16),
)


def random_pairs(size: int, resolution: int) -> Pairs:
    g = torch.Generator().manual_seed(7)
    pictures = torch.rand(2, size, 3, resolution, resolution, generator=g) * 2 - 1
    return {"target": pictures[0], "condition": pictures[1], "pose": torch.randn(size, 4, generator=g)}


def mean_loss(
    model: Zero123, batch: Batch, generator: torch.Generator | None = None, drop: float = CONDITIONING_DROP
) -> torch.Tensor:
    return model.losses(batch, generator, drop)[0].mean()


def loss_and_gradients(model: Zero123) -> tuple[float, dict[str, torch.Tensor]]:
    g = torch.Generator().manual_seed(5)
    latents = torch.randn(2, 3, 12, 8, 8, generator=g, dtype=torch.float64)
    embedding, pose = torch.randn(3, 16, generator=g).double(), torch.randn(3, 4, generator=g).double()
    model.zero_grad()
    losses, _ = model.latent_losses(*latents, embedding, pose, torch.Generator().manual_seed(1))
    losses.mean().backward()
    return losses.mean().item(), {n: p.grad.clone() for n, p in model.unet.named_parameters() if p.grad is not None}
