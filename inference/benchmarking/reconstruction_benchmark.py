"""Measure the renderer of score Jacobian chaining against a dense one, and report the times.

The dense renderer is the textbook's: `grid_sample` at all samples of all rays, transmittance by a cumulative product.
It has the same samples, so that both compute the same picture.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from inference.config import BenchmarkConfig
from inference.reconstruction.field.rays import camera_rays, cube_crossing
from inference.reconstruction.sjc.cameras import sample_camera
from inference.reconstruction.sjc.field import BACKGROUND_DISTANCE, SjcField
from inference.reconstruction.sjc.settings import SjcSettings
from rendering.cameras import Array
from training.model.hardware.device import resolve_device

CANVAS = 32  # pixels per side
CHANNELS = 4  # of Stable Diffusion's latents
VIEWS = 3  # of a step: input, random, nearby
RADIUS = 0.4  # of the ball
Render = Callable[[SjcField, Array], tuple[Tensor, Tensor]]  # canvases [B · S², K] and distances [B · S²]


@dataclass
class Measurement:
    """Durations of rendering and the backward pass, and the difference between the two renderers' canvases."""

    ours: list[float] = field(default_factory=list)
    dense: list[float] = field(default_factory=list)
    difference: float = 0.0


def benchmark(config: BenchmarkConfig) -> int:
    """Measure both renderers on two fields and write the report; return the exit code."""
    device, settings = resolve_device(config.device), SjcSettings()
    rng = np.random.default_rng(0)
    fields = {"fog of the first step": fog(settings, device), "a ball in empty space": ball(settings, device)}
    measurements = {name: Measurement() for name in fields}
    for number in range(config.rounds + 1):  # the first is a warm-up
        cameras = np.stack([sample_camera(rng, settings) for _ in range(VIEWS)])
        for name, model in fields.items():
            ours, canvases = timed(sparse, model, cameras)
            dense, expected = timed(dense_render, model, cameras)
            if number:
                measurements[name].ours.append(ours)
                measurements[name].dense.append(dense)
            measurements[name].difference = max(measurements[name].difference, float((canvases - expected).abs().max()))
    text, output = table(measurements, settings, device), Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    seconds = {kind: {name: getattr(m, kind) for name, m in measurements.items()} for kind in ("ours", "dense")}
    (output / "benchmark.json").write_text(json.dumps(seconds, indent=1) + "\n")
    (output / "benchmark.md").write_text(text)
    print(text)
    print(f"report: {output / 'benchmark.md'}")
    return 0


def fog(settings: SjcSettings, device: torch.device) -> SjcField:
    """Return a field at the start of the optimisation."""
    return SjcField(settings, torch.ones(CHANNELS, device=device), False, torch.Generator().manual_seed(0))


def ball(settings: SjcSettings, device: torch.device) -> SjcField:
    """Return a field with an opaque ball, as empty elsewhere as after a fit."""
    model = fog(settings, device)
    with torch.no_grad():
        inside = model.density.positions().norm(dim=1) < RADIUS
        model.density.raw[1:, 0] = torch.where(inside, 30.0, -20.0)
    return model


def timed(render: Render, model: SjcField, cameras: Array) -> tuple[float, Tensor]:
    """Return the duration, s, of a render and its backward pass, and the canvases."""
    model.zero_grad()
    _wait(model)
    start = perf_counter()
    canvases, distances = render(model, cameras)
    (canvases.square().sum() + distances.sum()).backward()
    _wait(model)
    return perf_counter() - start, canvases.detach()


def _wait(model: SjcField) -> None:
    if model.background.device.type == "cuda":
        torch.cuda.synchronize(model.background.device)


def sparse(model: SjcField, cameras: Array) -> tuple[Tensor, Tensor]:
    """Render with `SjcField`; the search for empty cells, which a fit does every 16 steps, is included."""
    canvases = model.render(cameras, CANVAS, model.occupied_cells())
    return canvases.values.permute(0, 2, 3, 1).flatten(0, 2), canvases.distances.flatten()


def dense_render(model: SjcField, cameras: Array) -> tuple[Tensor, Tensor]:
    """Render all samples of all rays."""
    origins, directions = (
        part.reshape(-1, 3) for part in camera_rays(torch.from_numpy(cameras).to(model.background), CANVAS)
    )
    near_R, far_R = cube_crossing(origins, directions, model.density.half_side)
    places_S = torch.arange(int(((far_R - near_R).max() / model.step).ceil()), device=origins.device) + 0.5
    distance_RS = near_R[:, None] + places_S * model.step
    points_RS3 = origins[:, None] + distance_RS[..., None] * directions[:, None]
    sigma_RS = model.sigma(_sampled(model, model.density.raw, points_RS3)[..., 0]) * (distance_RS < far_R[:, None])
    alpha_RS = 1 - torch.exp(-sigma_RS * model.step)
    clear_RS = (1 - alpha_RS).cumprod(dim=1)
    weights_RS = alpha_RS * torch.cat([torch.ones_like(clear_RS[:, :1]), clear_RS[:, :-1]], dim=1)
    values_RK = (weights_RS[..., None] * _sampled(model, model.values.raw, points_RS3)).sum(dim=1)
    clear_R = 1 - weights_RS.sum(dim=1)
    distance_R = (weights_RS * distance_RS).sum(dim=1) + clear_R * BACKGROUND_DISTANCE
    return values_RK + clear_R[:, None] * model.background, distance_R


def _sampled(model: SjcField, raw: Tensor, points_RS3: Tensor) -> Tensor:
    nodes = model.density.nodes
    grid = raw[1:].T.reshape(1, -1, nodes, nodes, nodes)  # [1, C, x, y, z]; grid_sample has the last axis first
    places = (points_RS3.flip(-1) / model.density.half_side)[None, None]
    return functional.grid_sample(grid, places, align_corners=True, padding_mode="border")[0, :, 0].permute(1, 2, 0)


def table(measurements: dict[str, Measurement], settings: SjcSettings, device: torch.device) -> str:
    """Return the report as Markdown."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    lines = [
        f"Render and backward pass of {VIEWS} views of {CANVAS}² from {settings.nodes}³ nodes of {CHANNELS} latent "
        f"channels; {name}, median of {len(next(iter(measurements.values())).ours)}\n",
        "| field | ours, steps/s | dense, steps/s | speed-up of ours | greatest difference of a canvas |",
        "| --- | --- | --- | --- | --- |",
    ]
    for label, measured in measurements.items():
        ours, dense = median(measured.ours), median(measured.dense)
        lines.append(
            f"| {label} | {1 / ours:.2f} | {1 / dense:.2f} | {dense / ours:.2f}× | {measured.difference:.4f} |"
        )
    return "\n".join(lines) + "\n"
