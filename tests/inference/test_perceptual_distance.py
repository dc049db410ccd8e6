"""LPIPS and ST-LPIPS against a second computation, written from the paper's equation."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torchmetrics
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional as F

from conf.options import UserError
from inference.evaluation.metrics.loading import load_metrics
from inference.evaluation.metrics.metric import PictureMetric, Pixels
from inference.evaluation.metrics.perceptual_distance import NETWORKS
from inference.evaluation.metrics.weights import MetricWeights
from rendering.psnr import psnr

CPU = torch.device("cpu")
HEADS = Path(torchmetrics.__file__).parent / "functional/image/lpips_models"
SHIFT_TOLERANT = Path(__file__).parents[3] / "shared/weights/alex_shift_tolerant.pth"
# Layers by their index in torchvision: c, a convolution with its stride and padding, and ReLU; p, a pooling by the
# maximum of n² pixels at every second; f, SqueezeNet's fire module. The output is compared after a star.
LAYERS = {
    "alex": "c0/4/2* p3 c3/1/2* p3 c6/1/1* c8/1/1* c10/1/1*",
    "vgg": "c0/1/1 c2/1/1* p2 c5/1/1 c7/1/1* p2 c10/1/1 c12/1/1 c14/1/1* p2 c17/1/1 c19/1/1 c21/1/1* "
    "p2 c24/1/1 c26/1/1 c28/1/1*",
    "squeeze": "c0/2/0* P3 f3 f4* P3 f6 f7* P3 f9* f10* f11* f12*",
}


def features(net: str, weights: dict[str, Tensor], values: Tensor) -> list[Tensor]:
    def convolve(name: str, values: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
        return F.conv2d(values, weights[f"features.{name}.weight"], weights[f"features.{name}.bias"], stride, padding)

    outputs = []
    for layer in LAYERS[net].split():
        kind, rest = layer[0], layer[1:].rstrip("*")
        if kind == "c":
            index, stride, padding = rest.split("/")
            values = convolve(index, values, int(stride), int(padding)).clamp(min=0)
        elif kind == "f":
            squeezed = convolve(f"{rest}.squeeze", values).clamp(min=0)
            parts = [convolve(f"{rest}.expand1x1", squeezed), convolve(f"{rest}.expand3x3", squeezed, 1, 1)]
            values = torch.cat(parts, 1).clamp(min=0)
        else:
            values = F.max_pool2d(values, int(rest), 2, ceil_mode=kind == "P")
        if layer.endswith("*"):
            outputs.append(values)
    return outputs


def plain_lpips(net: str, weights: dict[str, Tensor], first: Pixels, second: Pixels) -> float:
    """Equation 1 of Zhang et al. 2018 with the constants of LPIPS v0.1, in float64."""
    heads = torch.load(HEADS / f"{net}.pth", map_location="cpu", weights_only=True)
    shift, scale = torch.tensor([[-0.030, -0.088, -0.188], [0.458, 0.448, 0.450]]).double()[:, :, None, None]
    inputs = [(torch.tensor(one).permute(2, 0, 1) / 127.5 - 1 - shift) / scale for one in (first, second)]
    distance = 0.0
    for level, (a, b) in enumerate(zip(*(features(net, weights, one[None].double()) for one in inputs), strict=True)):
        a, b = (one / one.pow(2).sum(1, keepdim=True).sqrt().clamp(min=1e-10) for one in (a, b))
        weighted = heads[f"lin{level}.model.1.weight"].double() * (a - b) ** 2
        distance += float(weighted.sum(1).mean())
    return distance


def picture(side: int, seed: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def disc(shift: int = 0, side: int = 64) -> Pixels:
    rows, columns = (np.mgrid[:side, :side] + 0.5) / side - 0.5
    inside = rows**2 + (columns - shift / side) ** 2 < 0.09
    shades = np.stack([100 + 80 * rows, 120 + 90 * (columns - shift / side), np.full((side, side), 60.0)], axis=2)
    return np.where(inside[..., None], shades, 255).astype(np.uint8)


@pytest.fixture(scope="module", params=NETWORKS)
def network(request, tmp_path_factory):
    """A network's name, random weights, and LPIPS with these."""
    net = request.param
    torch.manual_seed(0)
    weights = {name: value * 2 for name, value in NETWORKS[net][0]().state_dict().items()}
    path = tmp_path_factory.mktemp(net) / "backbone.pth"
    # torchvision's files are of both formats, and hold the classifier as well.
    torch.save(weights | {"classifier.bias": torch.ones(3)}, path, _use_new_zipfile_serialization=net != "vgg")
    loaded = load_metrics([f"lpips_{net}"], MetricWeights(**{f"lpips_{net}": str(path)}), CPU)
    return net, {name: value.double() for name, value in weights.items()}, loaded.picture_metrics[0]


def test_lpips_agrees_with_a_second_computation(network):
    net, weights, metric = network
    pairs = [(picture(side, 1), picture(side, 2)) for side in (64, 40, 40)] + [(disc(), disc(shift=4))]
    expected = [plain_lpips(net, weights, *pair) for pair in pairs]
    assert metric.score(*zip(*pairs, strict=True)) == pytest.approx(expected, abs=1e-4)
    assert min(expected) > 1e-3


def test_equal_pictures_have_distance_zero_and_a_shift_costs(network):
    _, _, metric = network
    equal, near, far = metric.score([disc(), disc(shift=1), disc(shift=8)], [disc()] * 3)
    assert equal == 0 and 0 < near < far


def test_pairs_that_cannot_be_compared_are_refused(network):
    net, _, metric = network
    with pytest.raises(UserError, match="64×64 pixels, its true view 40×40"):
        metric.score([picture(64, 0)], [picture(40, 0)])
    for wrong in (np.full((64, 64, 3), np.nan), picture(64, 0) / 255):
        with pytest.raises(ValueError, match="uint8"):
            metric.score([wrong], [picture(64, 0)])
    least = {"alex": 31, "vgg": 16, "squeeze": 17}[net]
    assert metric.score([picture(least, 0)], [picture(least, 0)]) == [0]
    with pytest.raises(UserError, match=f"lpips_{net}: needs pictures of {least}²"):
        metric.score([picture(least - 1, 0)], [picture(least - 1, 0)])


def broken(weights: dict[str, Tensor], kind: str) -> object:
    first = next(iter(weights))
    match kind:
        case "not finite":
            return weights | {first: weights[first] * float("nan")}
        case "other shape":
            return weights | {first: weights[first][:2]}
        case "missing":
            return {name: value for name, value in weights.items() if name != first}
        case "a list":
            return list(weights.values())
    return {"weights": Path("code")}  # a pickle that would run code


@pytest.mark.parametrize("kind", ["not finite", "other shape", "missing", "a list", "code", "text", "cut off"])
def test_wrong_files_are_refused(kind, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(broken(NETWORKS["squeeze"][0]().state_dict(), kind), path)
    if kind == "text":
        path.write_text("these are no weights")
    if kind == "cut off":
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=f"weights.lpips_squeeze={path}: "):
        load_metrics(["lpips_squeeze"], MetricWeights(lpips_squeeze=str(path)), CPU)


def test_weights_of_another_network_and_absent_files_are_refused(network, tmp_path):
    net, weights, _ = network
    torch.save(weights, tmp_path / "weights.pth")
    for other in set(NETWORKS) - {net}:
        with pytest.raises(UserError, match=f"weights.lpips_{other}="):
            load_metrics([f"lpips_{other}"], MetricWeights(**{f"lpips_{other}": f"{tmp_path}/weights.pth"}), CPU)
    with pytest.raises(UserError, match="is no file"):
        load_metrics(["st_lpips_alex"], MetricWeights(st_lpips_alex=f"{tmp_path}/absent.pth"), CPU)
    with pytest.raises(UserError, match="weights.st_lpips_alex="):
        load_metrics(["st_lpips_alex"], MetricWeights(st_lpips_alex=f"{tmp_path}/weights.pth"), CPU)


@pytest.fixture(scope="module")
def shift_tolerant() -> PictureMetric:
    if not SHIFT_TOLERANT.is_file():
        pytest.skip(f"{SHIFT_TOLERANT} is not on this machine")
    return load_metrics(["st_lpips_alex"], MetricWeights(st_lpips_alex=str(SHIFT_TOLERANT)), CPU).picture_metrics[0]


def test_st_lpips_has_the_values_of_its_authors_code(shift_tolerant):
    """The golden values were computed once with the published package stlpips."""
    pairs = [(picture(side, 1), picture(side, 2)) for side in (21, 37, 64)] + [(disc(), disc(shift=4))]
    golden = [0.0529109, 0.0503357, 0.0358895, 0.0391954]
    assert shift_tolerant.score(*zip(*pairs, strict=True)) == pytest.approx(golden, abs=1e-5)


def test_st_lpips_tolerates_a_shift_better_than_a_blur_of_the_same_psnr(shift_tolerant):
    truth, shifted = disc(), disc(shift=1)
    blurred = gaussian_filter(truth.astype(float), (1.6, 1.6, 0)).round().astype(np.uint8)
    assert psnr(blurred, truth) > psnr(shifted, truth)
    equal, of_shift, of_blur = shift_tolerant.score([truth, shifted, blurred], [truth] * 3)
    assert equal == 0 and 0 < of_shift < of_blur / 2
