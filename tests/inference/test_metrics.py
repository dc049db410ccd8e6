"""Metrics of pictures against a second implementation, and against values worked out by hand."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, uniform_filter
from torchmetrics.functional.image import structural_similarity_index_measure

from conf.options import UserError
from inference.evaluation.metrics.loading import METRIC_NAMES, load_metrics
from inference.evaluation.metrics.masks import iou, object_mask
from inference.evaluation.metrics.metric import PictureMetric, Pixels
from inference.evaluation.metrics.weights import MetricWeights

CPU = torch.device("cpu")
OFFLINE = MetricWeights(clip="", download=False)


def metric(name: str, weights: MetricWeights = OFFLINE) -> PictureMetric:
    loaded = load_metrics([name], weights, CPU)
    assert not loaded.missing
    return loaded.picture_metrics[0]


def score(name: str, prediction: Pixels, truth: Pixels) -> float:
    return metric(name).score([prediction], [truth])[0]


def disc(side: int = 64, shift: int = 0, radius: float = 0.3) -> Pixels:
    """A shaded disc on white, moved to the right by `shift` pixels."""
    rows, columns = (np.mgrid[:side, :side] + 0.5) / side - 0.5
    inside = rows**2 + (columns - shift / side) ** 2 < radius**2
    shades = np.stack([100 + 80 * rows, 120 + 90 * (columns - shift / side), np.full((side, side), 60.0)], axis=2)
    return np.where(inside[..., None], shades, 255).astype(np.uint8)


def noisy(picture: Pixels, deviation: float, seed: int = 0) -> Pixels:
    noise = np.random.default_rng(seed).normal(0, deviation, picture.shape)
    return (picture + noise).round().clip(0, 255).astype(np.uint8)


GREY = np.full((64, 64, 3), 128, np.uint8)
BEST = {"psnr_db": 100, "mse": 0, "mask_iou": 1} | {
    name: 1 for name in ("ssim", "ssim_measured_range", "ssim_uniform7", "ssim_uniform11")
}
DEFAULT = pytest.mark.parametrize("name", BEST)


@DEFAULT
def test_equal_pictures_have_the_best_score_and_a_shift_costs(name):
    best, near, far = metric(name).score([disc(), disc(shift=1), disc(shift=8)], [disc()] * 3)
    assert best == pytest.approx(BEST[name], abs=1e-9)
    sign = 1 if metric(name).higher_is_better else -1
    assert sign * best > sign * near > sign * far


@DEFAULT
def test_pairs_that_cannot_be_compared_are_refused(name):
    compare = metric(name).score
    with pytest.raises(UserError, match="64×64 pixels, its true view 32×32"):
        compare([disc()], [disc(32)])
    with pytest.raises(ValueError, match="1 predictions for 2"):
        compare([disc()], [disc(), disc()])
    not_a_number = np.full((64, 64, 3), np.nan)
    for picture in (not_a_number, disc() / 255.0, disc()[..., :1], disc()[..., 0], [1, 2, 3]):
        with pytest.raises(ValueError, match="uint8"):
            compare([picture], [disc()])
        with pytest.raises(ValueError, match="uint8"):
            compare([disc()], [picture])


@pytest.mark.parametrize(("name", "window"), [("ssim", 11), ("ssim_uniform7", 7), ("ssim_uniform11", 11)])
def test_pictures_smaller_than_the_window_are_refused(name, window):
    assert score(name, disc(window), disc(window)) == 1
    with pytest.raises(UserError, match=f"{name}: needs pictures of {window}²"):
        score(name, disc(window - 1), disc(window - 1))


def test_noise_of_known_variance():
    other = noisy(GREY, 10)
    variance = 10**2 + 1 / 12  # of the noise and of its rounding
    assert score("mse", other, GREY) == pytest.approx(variance / 255**2, rel=0.03)
    assert score("psnr_db", other, GREY) == pytest.approx(10 * math.log10(255**2 / variance), abs=0.13)
    steps = GREY.copy()
    steps[::2] += 10
    assert score("psnr_db", steps, GREY) == pytest.approx(10 * math.log10(255**2 / 50), abs=1e-9)
    assert score("mse", steps, GREY) == pytest.approx(50 / 255**2, abs=1e-12)


def test_flat_pictures_have_the_ssim_of_the_formula():
    a, b = 100, 120
    flat = [np.full((32, 32, 3), level, np.uint8) for level in (a, b)]
    c = (0.01 * 255) ** 2
    for name in ("ssim", "ssim_uniform7", "ssim_uniform11"):
        assert score(name, *flat) == pytest.approx((2 * a * b + c) / (a * a + b * b + c), abs=1e-6)
    assert score("ssim_measured_range", *flat) == 0


def torchmetrics_ssim(picture: Pixels, truth: Pixels, data_range: float | None) -> float:
    tensors = [torch.from_numpy(one / 255.0).permute(2, 0, 1)[None] for one in (picture, truth)]
    _, whole = structural_similarity_index_measure(*tensors, data_range=data_range, return_full_image=True)
    return float(whole[..., 5:-5, 5:-5].mean())  # its mean has the mirrored border in it, unlike that of 2023


def plain_ssim(picture: Pixels, truth: Pixels, window: int) -> float:
    """SSIM of the paper's equation 13 with a uniform window, unbiased covariances and values in [0, 1]."""
    x, y = picture / 255.0, truth / 255.0
    mean = lambda values: uniform_filter(values, size=(window, window, 1))  # noqa: E731
    unbiased = window**2 / (window**2 - 1)
    mx, my = mean(x), mean(y)
    vx, vy, vxy = (unbiased * (mean(a * b) - mean(a) * mean(b)) for a, b in ((x, x), (y, y), (x, y)))
    c1, c2 = 0.01**2, 0.03**2
    values = (2 * mx * my + c1) * (2 * vxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    border = window // 2
    return float(values[border:-border, border:-border].mean())


@pytest.mark.parametrize("seed", range(3))
def test_ssim_agrees_with_a_second_implementation(seed):
    truth = disc(shift=2 * seed)
    blurred = gaussian_filter(truth.astype(float), (1, 1, 0)).round().astype(np.uint8)
    for picture in (noisy(truth, 20, seed), disc(), blurred):
        assert score("ssim", picture, truth) == pytest.approx(torchmetrics_ssim(picture, truth, 1.0), abs=1e-4)
        assert score("ssim_measured_range", picture, truth) == pytest.approx(
            torchmetrics_ssim(picture, truth, None), abs=1e-4
        )
        for window in (7, 11):
            expected = plain_ssim(picture, truth, window)
            assert score(f"ssim_uniform{window}", picture, truth) == pytest.approx(expected, abs=1e-4)


def test_mask_iou_by_hand():
    white = np.full((16, 16, 3), 255, np.uint8)
    left, right = white.copy(), white.copy()
    left[4:8, 0:8] = (255, 255, 200)  # 32 pixels
    right[4:8, 4:12] = 0  # 32 pixels, 16 of them shared
    assert score("mask_iou", left, right) == pytest.approx(16 / 48)
    nearly_white = np.full((16, 16, 3), 255 - 16, np.uint8)
    assert score("mask_iou", nearly_white, right) == 0  # nothing is drawn
    assert score("mask_iou", left, white) == 0  # something is drawn where there is nothing
    assert score("mask_iou", nearly_white, white) == 1
    assert object_mask(nearly_white - 1).all()
    with pytest.raises(ValueError, match="compared"):
        iou(object_mask(white), object_mask(white)[:8])


def test_unknown_metrics_are_refused_with_the_known_ones():
    with pytest.raises(UserError, match="metrics=psnr: unknown") as error:
        load_metrics(["ssim", "psnr"], OFFLINE, CPU)
    assert all(name in str(error.value) for name in METRIC_NAMES)


def test_metrics_keep_the_order_of_their_names():
    loaded = load_metrics(["mask_iou", "psnr_db", "ssim", "psnr_db"], OFFLINE, CPU)
    assert [one.name for one in loaded.picture_metrics] == ["mask_iou", "psnr_db", "ssim"]


def test_metrics_that_need_larger_pictures_are_left_out():
    names = ["ssim", "psnr_db", "ssim_uniform7", "ssim_uniform11"]
    loaded = load_metrics(names, OFFLINE, CPU, resolution=10)
    assert [one.name for one in loaded.picture_metrics] == ["psnr_db", "ssim_uniform7"]
    assert [sentence.split(":")[0] for sentence in loaded.missing] == ["ssim", "ssim_uniform11"]
    assert all("11²" in sentence and "10²" in sentence for sentence in loaded.missing)
    assert not load_metrics(names, OFFLINE, CPU, resolution=11).missing
