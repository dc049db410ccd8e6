"""Convolutional layers of classification networks, with the names that torchvision gives to their tensors."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Trunk(nn.Module):
    """The first layers of a network, some of whose outputs are compared.

    Args:
        layers: Layers in their order.
        taps: Indices of the layers whose outputs are returned; the last layer is one.
        channels: Number of channels of each output.
        min_side: Least side of a picture, pixels.
    """

    def __init__(self, layers: Iterable[nn.Module], taps: tuple[int, ...], channels: tuple[int, ...], min_side: int):
        super().__init__()
        self.features = nn.Sequential(*layers)
        self.taps, self.channels, self.min_side = taps, channels, min_side

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """Return the outputs `[B, C, h, w]` of the tapped layers for normalised pictures `[B, 3, H, W]`."""
        outputs = []
        for index, layer in enumerate(self.features):
            pictures = layer(pictures)
            if index in self.taps:
                outputs.append(pictures)
        return outputs


def alexnet() -> Trunk:
    """Return the convolutions of AlexNet (Krizhevsky 2014, one column)."""
    layers = [
        *_convolution(3, 64, 11, stride=4, padding=2),
        nn.MaxPool2d(3, 2),
        *_convolution(64, 192, 5),
        nn.MaxPool2d(3, 2),
        *_convolution(192, 384),
        *_convolution(384, 256),
        *_convolution(256, 256),
    ]
    return Trunk(layers, (1, 4, 7, 9, 11), (64, 192, 384, 256, 256), 31)


def vgg16() -> Trunk:
    """Return the convolutions of VGG-16 (Simonyan and Zisserman 2015, configuration D)."""
    layers: list[nn.Module] = []
    before = 3
    for block, (width, count) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
        layers += [nn.MaxPool2d(2, 2)] if block else []
        for _ in range(count):
            layers += _convolution(before, width)
            before = width
    return Trunk(layers, (3, 8, 15, 22, 29), (64, 128, 256, 512, 512), 16)


def squeezenet() -> Trunk:
    """Return the convolutions of SqueezeNet 1.1 (Iandola et al. 2016)."""
    layers = [
        *_convolution(3, 64, stride=2, padding=0),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(64, 16, 64),
        Fire(128, 16, 64),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(128, 32, 128),
        Fire(256, 32, 128),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(256, 48, 192),
        Fire(384, 48, 192),
        Fire(384, 64, 256),
        Fire(512, 64, 256),
    ]
    return Trunk(layers, (1, 4, 7, 9, 10, 11, 12), (64, 128, 256, 384, 384, 512, 512), 17)


def shift_tolerant_alexnet() -> Trunk:
    """Return the convolutions of AlexNet as in ST-LPIPS (Ghildyal and Liu 2022), stride 1 and blurred downsampling."""
    layers = [
        nn.Conv2d(3, 64, 11, stride=1, padding=2),
        BlurPool(64),
        nn.ReLU(),
        nn.MaxPool2d(3, 1),
        BlurPool(64),
        *_convolution(64, 192, 5),
        nn.MaxPool2d(3, 1),
        BlurPool(192),
        *_convolution(192, 384),
        *_convolution(384, 256),
        *_convolution(256, 256),
    ]
    return Trunk(layers, (2, 6, 10, 12, 14), (64, 192, 384, 256, 256), 21)


def _convolution(
    before: int, after: int, kernel: int = 3, stride: int = 1, padding: int | None = None
) -> list[nn.Module]:
    """Return a convolution, padded to keep the size if nothing else is asked for, and its ReLU."""
    padding = kernel // 2 if padding is None else padding
    return [nn.Conv2d(before, after, kernel, stride=stride, padding=padding), nn.ReLU()]


class Fire(nn.Module):
    """SqueezeNet's module: 1×1 convolutions to few channels, then 1×1 and 3×3 convolutions side by side."""

    def __init__(self, before: int, squeezed: int, expanded: int):
        super().__init__()
        self.squeeze = nn.Conv2d(before, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, values: Tensor) -> Tensor:
        """Return `[B, 2 · expanded, h, w]` for `[B, before, h, w]`."""
        values = F.relu(self.squeeze(values))
        return F.relu(torch.cat([self.expand1x1(values), self.expand3x3(values)], dim=1))


class BlurPool(nn.Module):
    """Halve the size after a binomial blur of 3×3 (Zhang 2019), with a mirrored border of 2 pixels."""

    def __init__(self, channels: int):
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("filt", torch.outer(row, row).expand(channels, 1, 3, 3).clone())

    def forward(self, values: Tensor) -> Tensor:
        """Return `[B, C, h/2 + 1, w/2 + 1]` for `[B, C, h, w]`."""
        padded = F.pad(values, (2, 2, 2, 2), mode="reflect")
        return F.conv2d(padded, self.filt, stride=2, groups=values.shape[1])  # type: ignore[arg-type]
