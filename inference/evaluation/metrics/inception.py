"""Inception v3 as FID uses it: TensorFlow's network of 2015-12-05, with pytorch-fid's names of its tensors.

It differs from torchvision's: average pooling leaves out the padding, and the last block pools by the maximum.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FEATURES = 2048
SIDE_PX = 299  # of the pictures that the network takes

Layer = tuple[str, int, int | tuple[int, int]]  # name, output channels, kernel
Pool = Callable[[Tensor], Tensor]

average: Pool = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
maximum: Pool = partial(F.max_pool2d, kernel_size=3, stride=1, padding=1)
halved: Pool = partial(F.max_pool2d, kernel_size=3, stride=2)
WIDE, TALL = (1, 7), (7, 1)
DOUBLE: list[Layer] = [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)]


class Convolution(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, before: int, after: int, kernel: int | tuple[int, int], stride: int = 1, padded: bool = True):
        super().__init__()
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (height // 2, width // 2) if padded else 0
        self.conv = nn.Conv2d(before, after, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(after, eps=0.001)

    def forward(self, values: Tensor) -> Tensor:
        """Return `[B, after, h', w']` for `[B, before, h, w]`."""
        return F.relu(self.bn(self.conv(values)))


class Mixed(nn.Module):
    """Block of branches whose outputs are concatenated.

    Args:
        before: Number of input channels.
        branches: Layers of each branch, one after the other. Layers whose names end in `a` and `b` take the same input
            and are concatenated.
        pool: Pooling of the last branch; `halved` makes the last layer of every branch halve the size, too.
        pooled: Output channels of the convolution after the pooling; 0: none.
    """

    def __init__(self, before: int, branches: Sequence[Sequence[Layer]], pool: Pool, pooled: int = 0):
        super().__init__()
        self.pool, self.has_convolution = pool, pooled > 0
        self.names = [[name for name, _, _ in branch] for branch in branches]
        for branch in branches:
            channels = before
            for name, after, kernel in branch:
                halves = pool is halved and name == branch[-1][0]
                self.add_module(name, Convolution(channels, after, kernel, 2 if halves else 1, not halves))
                channels = channels if name.endswith("a") else after
        if pooled:
            self.branch_pool = Convolution(before, pooled, 1)

    def forward(self, values: Tensor) -> Tensor:
        """Return the outputs of all branches `[B, C', h', w']` for `[B, before, h, w]`."""
        outputs = [output for names in self.names for output in self._outputs(names, values)]
        pooled = self.pool(values)
        return torch.cat([*outputs, self.branch_pool(pooled) if self.has_convolution else pooled], dim=1)

    def _outputs(self, names: Sequence[str], values: Tensor) -> list[Tensor]:
        outputs: list[Tensor] = []
        for name in names:
            output = self.get_submodule(name)(values)
            if name.endswith(("a", "b")):
                outputs.append(output)
            else:
                values = output
        return outputs or [values]


def _mixed_5(before: int, pooled: int) -> Mixed:
    branches: list[list[Layer]] = [
        [("branch1x1", 64, 1)],
        [("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)],
        DOUBLE,
    ]
    return Mixed(before, branches, average, pooled)


def _mixed_6(inner: int) -> Mixed:
    branches: list[list[Layer]] = [
        [("branch1x1", 192, 1)],
        [("branch7x7_1", inner, 1), ("branch7x7_2", inner, WIDE), ("branch7x7_3", 192, TALL)],
        [
            ("branch7x7dbl_1", inner, 1),
            ("branch7x7dbl_2", inner, TALL),
            ("branch7x7dbl_3", inner, WIDE),
            ("branch7x7dbl_4", inner, TALL),
            ("branch7x7dbl_5", 192, WIDE),
        ],
    ]
    return Mixed(768, branches, average, 192)


def _mixed_7(before: int, pool: Pool) -> Mixed:
    fork = ((1, 3), (3, 1))
    branches: list[list[Layer]] = [
        [("branch1x1", 320, 1)],
        [("branch3x3_1", 384, 1), ("branch3x3_2a", 384, fork[0]), ("branch3x3_2b", 384, fork[1])],
        [
            ("branch3x3dbl_1", 448, 1),
            ("branch3x3dbl_2", 384, 3),
            ("branch3x3dbl_3a", 384, fork[0]),
            ("branch3x3dbl_3b", 384, fork[1]),
        ],
    ]
    return Mixed(before, branches, pool, 192)


class Inception(nn.Module):
    """The network up to its average pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, 3, stride=2, padded=False)
        self.Conv2d_2a_3x3 = Convolution(32, 32, 3, padded=False)
        self.Conv2d_2b_3x3 = Convolution(32, 64, 3)
        self.Conv2d_3b_1x1 = Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = Convolution(80, 192, 3, padded=False)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _mixed_5(192, 32), _mixed_5(256, 64), _mixed_5(288, 64)
        self.Mixed_6a = Mixed(288, [[("branch3x3", 384, 3)], DOUBLE], halved)
        self.Mixed_6b, self.Mixed_6c = _mixed_6(128), _mixed_6(160)
        self.Mixed_6d, self.Mixed_6e = _mixed_6(160), _mixed_6(192)
        branches: list[list[Layer]] = [
            [("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3)],
            [
                ("branch7x7x3_1", 192, 1),
                ("branch7x7x3_2", 192, WIDE),
                ("branch7x7x3_3", 192, TALL),
                ("branch7x7x3_4", 192, 3),
            ],
        ]
        self.Mixed_7a = Mixed(768, branches, halved)
        self.Mixed_7b, self.Mixed_7c = _mixed_7(1280, average), _mixed_7(2048, maximum)

    def forward(self, pictures: Tensor) -> Tensor:
        """Return the features `[B, 2048]` of pictures `[B, 3, 299, 299]`, values in [-1, 1]."""
        values = halved(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(pictures))))
        values = halved(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(values)))
        for name, block in self.named_children():
            if name.startswith("Mixed"):
                values = block(values)
        return values.mean(dim=(2, 3))
