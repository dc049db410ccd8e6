"""Learned perceptual distance of pictures: LPIPS (Zhang et al. 2018) and ST-LPIPS (Ghildyal and Liu 2022).

picture ─ scale ─ trunk ─▶ features y_l of layers l ─ unit length per pixel ─▶ ŷ_l
distance = Σ_l mean over pixels of w_l · (ŷ_l − ŷ'_l)²        (equation 1 of the paper)
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from inference.evaluation.metrics.batches import exact_convolutions, tensors_in_batches
from inference.evaluation.metrics.metric import PictureMetric, Pixels
from inference.evaluation.metrics.pictures import require_pairs
from inference.evaluation.metrics.trunks import Trunk, alexnet, shift_tolerant_alexnet, squeezenet, vgg16
from inference.evaluation.metrics.weight_files import (
    Release,
    UnavailableMetric,
    describe_file,
    find_weights,
    load_tensors,
    package_folder,
    read_tensors,
    require_file,
)
from inference.evaluation.metrics.weights import MetricWeights

BATCH = 16  # pairs
EPSILON = 1e-10  # added to the length of a feature, as in the package lpips
TORCHVISION = "https://download.pytorch.org/models/"
NETWORKS: dict[str, tuple[Callable[[], Trunk], Release]] = {
    "alex": (
        alexnet,
        Release("weights.lpips_alex", "torchvision's AlexNet", TORCHVISION + "alexnet-owt-7be5be79.pth"),
    ),
    "vgg": (vgg16, Release("weights.lpips_vgg", "torchvision's VGG-16", TORCHVISION + "vgg16-397923af.pth")),
    "squeeze": (
        squeezenet,
        Release("weights.lpips_squeeze", "torchvision's SqueezeNet 1.1", TORCHVISION + "squeezenet1_1-b8a52dc0.pth"),
    ),
}


class PerceptualDistance(nn.Module):
    """Distance of pictures by the features of a trunk.

    Args:
        trunk: Network without weights.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, trunk: Trunk):
        super().__init__()
        self.trunk = trunk
        self.heads = nn.ParameterList([torch.zeros(1, channels, 1, 1) for channels in trunk.channels])
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188])[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450])[:, None, None], persistent=False)

    def forward(self, pictures: Tensor, truths: Tensor) -> Tensor:
        """Return the distance `[B]` of pictures and true pictures `[B, 3, H, W]`, values in [-1, 1]."""
        features, true_features = self._features(pictures), self._features(truths)
        distance = torch.zeros(len(pictures), device=pictures.device)
        for head, one, truth in zip(self.heads, features, true_features, strict=True):
            distance += ((one - truth) ** 2 * head).sum(dim=1).mean(dim=(1, 2))
        return distance

    def _features(self, pictures: Tensor) -> list[Tensor]:
        outputs = self.trunk((pictures - self.shift) / self.scale)
        return [one / (one.norm(dim=1, keepdim=True) + EPSILON) for one in outputs]


def load_lpips(net: str, weights: MetricWeights, device: torch.device) -> PictureMetric:
    """Load LPIPS v0.1 with torchvision's backbone and the linear layers that torchmetrics ships.

    Args:
        net: alex, vgg or squeeze.
        weights: Where the backbone is.
        device: Where the network runs.

    Raises:
        UnavailableMetric: The backbone cannot be had, or torchmetrics is not installed.
        UserError: The given file holds something else.
    """
    build, release = NETWORKS[net]
    heads = package_folder("torchmetrics") / "functional/image/lpips_models" / f"{net}.pth"
    path = find_weights(release, getattr(weights, f"lpips_{net}"), weights.download)
    distance = PerceptualDistance(build())
    load_tensors(distance.trunk, read_tensors(path, release.option), f"{release.option}={path}", release.title)
    _load_heads(distance, read_tensors(heads, "torchmetrics"), f"torchmetrics={heads}")
    definition = (
        f"LPIPS v0.1, backbone {release.title} ({describe_file(path, release)}), linear layers of torchmetrics, "
        "pictures scaled to [-1, 1], not resized"
    )
    return _metric(f"lpips_{net}", f"LPIPS, {net}", definition, distance.to(device))


def load_st_lpips(weights: MetricWeights, device: torch.device) -> PictureMetric:
    """Load ST-LPIPS, whose file holds backbone and linear layers.

    Raises:
        UnavailableMetric: No file is given.
        UserError: The given file holds something else.
    """
    option = "weights.st_lpips_alex"
    if not weights.st_lpips_alex:
        raise UnavailableMetric(f"has no weights; give {option}=<path>/alex_shift_tolerant.pth, of ShiftTolerant-LPIPS")
    path = require_file(weights.st_lpips_alex, option)
    tensors, source = read_tensors(path, option), f"{option}={path}"
    distance = PerceptualDistance(shift_tolerant_alexnet())
    renamed = {f"features.{name.split('.', 2)[-1]}": value for name, value in tensors.items() if "net.slice" in name}
    load_tensors(distance.trunk, renamed, source, "ST-LPIPS, alex_shift_tolerant.pth")
    _load_heads(distance, tensors, source)
    definition = (
        f"ST-LPIPS v0.0, shift-tolerant AlexNet ({describe_file(path)}) trained as a whole, pictures scaled to "
        "[-1, 1], not resized; not comparable with LPIPS"
    )
    return _metric("st_lpips_alex", "ST-LPIPS, alex", definition, distance.to(device))


def _load_heads(distance: PerceptualDistance, tensors: Mapping[str, Tensor], source: str) -> None:
    names = {f"lin{index}.model.1.weight": str(index) for index in range(len(distance.heads))}
    heads = {index: tensors[name] for name, index in names.items() if name in tensors}
    load_tensors(distance.heads, heads, source, "LPIPS's linear layers")


def _metric(name: str, label: str, definition: str, distance: PerceptualDistance) -> PictureMetric:
    return PictureMetric(name, label, definition, False, partial(_score, name, distance), distance.trunk.min_side)


def _score(
    name: str, distance: PerceptualDistance, predictions: Sequence[Pixels], truths: Sequence[Pixels]
) -> list[float]:
    require_pairs(predictions, truths, name, distance.trunk.min_side)
    scores: list[float] = []
    with torch.inference_mode(), exact_convolutions():
        for one, truth in tensors_in_batches((predictions, truths), BATCH, distance.shift.device):
            scores += distance(one / 127.5 - 1, truth / 127.5 - 1).tolist()
    return scores
