"""Operations of the full model, counted on the meta device, and peak FLOP/s of GPUs."""

from dataclasses import replace

import pytest
import torch

from tests.support.small_model import SMALL
from training.model.architecture import build
from training.model.attention import attend_to_one_token
from training.model.config import Architecture
from training.model.hardware.cost import encoding_flops, mfu, on_meta, peak_flops, step_flops, unet_flops


@pytest.fixture(scope="module")
def zero123():
    with torch.device("meta"):
        return build(Architecture())


def test_stable_diffusion_takes_176_gflop_per_image(zero123):
    model = on_meta(zero123)
    attend_to_one_token(model.unet, shortcut=False)
    assert unet_flops(model.unet) == pytest.approx(176.3e9, rel=5e-4)
    assert step_flops(model) == pytest.approx(529e9, rel=5e-4)


def test_shortcut_saves_the_operations_of_queries_and_keys(zero123):
    general = unet_flops(attend_to_one_token(on_meta(zero123.unet), shortcut=False))
    # (pixels, width, blocks) of Stable Diffusion's attention. Queries and output are of each pixel; the one token's
    # output projection stays, its key goes, and so do scores and their sum.
    blocks = [(1024, 320, 5), (256, 640, 5), (64, 1280, 5), (16, 1280, 1)]
    saved = sum(count * (2 * n * w * w + 2 * (n - 1) * w * w + 2 * 768 * w + 2 * 2 * n * w) for n, w, count in blocks)
    assert general - unet_flops(zero123.unet) == saved


def test_operations_of_small_layers_match_hand_computed_values():
    model = build(SMALL)
    vae = 0  # the patch autoencoder only permutes pixels
    tokens, width = 5, 16  # four patches and the class token
    layer = 4 * 2 * tokens * width * width + 2 * 2 * tokens * tokens * width + 2 * 2 * tokens * width * 4 * width
    clip = 2 * 4 * (3 * 8 * 8) * width + layer + 2 * width * 16
    assert encoding_flops(model) == 2 * vae + clip
    trained = build(replace(SMALL, train_image_encoder=True))
    assert step_flops(trained) - step_flops(model) == 3 * clip


def test_counting_does_not_move_the_model():
    model = build(SMALL)
    before = model.unet.conv_in.weight.clone()
    unet_flops(model.unet)
    assert model.unet.conv_in.weight.device.type == "cpu" and torch.equal(model.unet.conv_in.weight, before)
    assert model.unet.conv_in.weight.requires_grad


@pytest.mark.parametrize(
    ("name", "bfloat16"),
    [
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A10G", 70e12),
        ("NVIDIA A10", 125e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
        ("Tesla V100-SXM2-16GB", None),
        ("Some GPU of 2031", None),
    ],
)
def test_peak_flops_by_device_name(name, bfloat16):
    assert peak_flops(name, torch.bfloat16) == bfloat16


def test_peak_flops_by_precision():
    assert peak_flops("Tesla V100-SXM2-16GB", torch.float16) == 125e12
    assert peak_flops("NVIDIA A100-SXM4-80GB", torch.float16) == 312e12
    assert peak_flops("NVIDIA A100-SXM4-80GB", torch.float32) == 156e12


def test_mfu_matches_a_hand_computed_value():
    # mosaicml/diffusion's 137 images/s of an A100 from cached latents: 23 %.
    assert mfu(137, 529e9, 1, 312e12) == pytest.approx(0.232, abs=5e-4)
    assert mfu(8 * 137, 529e9, 8, 312e12) == pytest.approx(0.232, abs=5e-4)
    assert mfu(137, 529e9, 1, None) is None
