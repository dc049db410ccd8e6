"""The estimate compared with the allocator's peak in real steps, and with sums computed by hand."""

import json
from dataclasses import replace

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch.profiler import ProfilerActivity, profile

from conf.options import UserError
from tests.support.small_model import SMALL, random_pairs
from training.model.architecture import build
from training.model.config import ImageEncoderShape
from training.model.hardware.activations import measure_activations
from training.model.hardware.memory import (
    CONTEXT_BYTES,
    Estimate,
    available_memory,
    estimate,
    largest_batch,
    require_fit,
)


def allocated_by(step, module, path) -> int:
    """Return the peak bytes of torch's allocator during a step, minus those allocated before it."""
    for parameter in module.parameters():
        if parameter.requires_grad:  # dropped at once: the estimate counts gradients with the weights
            parameter.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step().backward()
    profiled.export_chrome_trace(str(path))
    seen = [e["args"] for e in json.loads(path.read_text())["traceEvents"] if e["name"] == "[memory]"]
    before = seen[0]["Total Allocated"] - seen[0]["Bytes"]
    return max(event["Total Allocated"] for event in seen) - before


@pytest.mark.parametrize("checkpointing", [False, True])
def test_estimated_activations_match_the_allocator(checkpointing, tmp_path):
    model = build(SMALL)
    per_step, per_pair = measure_activations(model, torch.float32, checkpointing)
    unet = model.unet.train()
    if checkpointing:
        unet.enable_gradient_checkpointing()

    def allocated(batch: int) -> int:
        latent, context = torch.zeros(batch, 24, 8, 8), torch.zeros(batch, 1, 16, requires_grad=True)
        step = lambda: unet(latent, torch.zeros(batch), encoder_hidden_states=context).sample.square().mean()  # noqa: E731
        return allocated_by(step, unet, tmp_path / f"{batch}.json")

    real = {size: allocated(size) for size in (64, 96)}
    # The workspace of a kernel is counted by the allocator only.
    assert per_step + 96 * per_pair == pytest.approx(real[96], rel=0.1)
    assert per_pair == pytest.approx((real[96] - real[64]) / 32, rel=0.1)


def test_estimated_activations_of_a_trained_encoder_match_the_allocator(tmp_path):
    encoder = ImageEncoderShape(image_size=16, patch_size=2, width=64, layers=4, heads=4, projection=16)
    model = build(replace(SMALL, encoder=encoder, train_image_encoder=True)).train()
    per_step, per_pair = measure_activations(model, torch.float32, latents=False)
    pairs = random_pairs(96, 16)
    real = allocated_by(lambda: model.losses(pairs)[0].mean(), model, tmp_path / "trace.json")
    assert per_step + 96 * per_pair == pytest.approx(real, rel=0.15)
    assert measure_activations(build(SMALL), torch.float32).per_pair < 0.6 * per_pair


def test_estimated_activations_of_the_autoencoder_match_the_allocator(tmp_path):
    """With checkpointing they are the largest of a step."""
    model = build(SMALL).train()
    down = ("DownEncoderBlock2D",) * 2
    model.vae = AutoencoderKL(
        block_out_channels=(64, 64), down_block_types=down, latent_channels=12, norm_num_groups=8
    ).requires_grad_(False)
    per_step, per_pair = measure_activations(model, torch.float32, checkpointing=True, latents=False)
    model.unet.enable_gradient_checkpointing()
    pairs = random_pairs(96, 16)
    real = allocated_by(lambda: model.losses(pairs)[0].mean(), model, tmp_path / "trace.json")
    assert per_step + 96 * per_pair == pytest.approx(real, rel=0.15)
    assert measure_activations(model, torch.float32, checkpointing=True).per_pair < 0.8 * per_pair


def test_bfloat16_and_checkpointing_reduce_activations(model):
    whole = measure_activations(model, torch.float32).per_pair
    half = measure_activations(model, torch.bfloat16).per_pair
    assert 0.5 * whole < half < 0.9 * whole, "norms stay in single precision"
    assert measure_activations(model, torch.bfloat16, checkpointing=True).per_pair < 0.6 * half


def test_compilation_reduces_activations(model):
    plain, compiled = (measure_activations(model, torch.float32, compiled=compiled) for compiled in (False, True))
    assert compiled == (plain.per_step, int(0.65 * plain.per_pair))
    recomputed = [measure_activations(model, torch.float32, True, compiled) for compiled in (False, True)]
    assert recomputed[0] == recomputed[1], "nothing was measured there"


@pytest.mark.parametrize(
    ("strategy", "devices", "bytes_per_parameter"),  # weights, gradients, moments, average, communication
    [
        ("single", 1, (4, 4, 8, 4, 0)),
        ("ddp", 4, (4, 4, 8, 4, 0)),
        ("zero1", 4, (4, 4, 2 + 1, 4, 8)),
        ("zero2", 4, (4, 1, 2 + 1, 4, 8)),
        ("zero3", 4, (1, 1, 2 + 1, 1, 4)),
    ],
)
def test_state_matches_hand_computed_bytes(strategy, devices, bytes_per_parameter, model):
    unet = sum(p.numel() for p in model.unet.parameters())
    idle = sum(p.numel() for p in model.unet.parameters() if not p.requires_grad)
    projection = sum(p.numel() for p in model.cc_projection.parameters())
    counts = (unet + projection, *[unet + projection - idle] * 2, unet, unet + projection - idle)
    e = estimate(model, 1, strategy, devices, activations=(0, 0))
    found = (e.weights, e.gradients, e.moments, e.average, e.communication)
    assert found == tuple(b * n for b, n in zip(bytes_per_parameter, counts, strict=True))
    frozen = sum(p.numel() for part in (model.vae, model.image_encoder) for p in part.parameters())
    assert e.frozen == 4 * frozen


ROUND = Estimate(10, 10**9, 10**9, 2 * 10**9, 10**9, 0, 0, 10**9, 10**8)  # 5 GB of state, 2 GB of activations


def test_a_batch_that_does_not_fit_is_refused_with_the_largest_that_fits():
    assert ROUND.total == 7 * 10**9 + CONTEXT_BYTES + 10**8  # 5 % of the activations for fragmentation
    available = 16 * 10**9
    fits = largest_batch(ROUND, available)
    assert fits == int((16 - 5 - 1 - 1.05) / 0.105)
    require_fit(Estimate(fits, *[getattr(ROUND, name) for name in list(ROUND.__dataclass_fields__)[1:]]), available)
    more = Estimate(fits + 1, *[getattr(ROUND, name) for name in list(ROUND.__dataclass_fields__)[1:]])
    with pytest.raises(UserError, match=rf"^data.batch_size={fits + 1}: .* data.batch_size={fits}$"):
        require_fit(more, available)
    with pytest.raises(UserError, match="not even one pair fits"):
        require_fit(ROUND, 6 * 10**9)
    require_fit(ROUND, None)


def test_estimate_is_printed_in_gb():
    assert str(ROUND) == (
        "memory per device: about 8.1 GB for 10 pairs "
        "(weights 1.0, gradients 1.0, moments 2.0, average 1.0, activations 2.0, margin 1.1)"
    )


def test_memory_of_the_machine_is_divided_by_processes():
    whole = available_memory(torch.device("cpu"))
    assert whole and available_memory(torch.device("cpu"), processes=4) == whole // 4
    assert available_memory(torch.device("meta")) is None
