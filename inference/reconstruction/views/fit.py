"""Fit a radiance grid to views, from coarse to fine.

masks ── visual hull ──▶ active nodes ── fit at 64³ ──▶ density ──▶ active nodes ── fit at 128³ ──▶ … ──▶ VoxelGrid
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from conf.options import UserError
from inference.reconstruction.field.volume_rendering import Rendered, composite
from inference.reconstruction.field.voxel_grid import VoxelGrid, gather
from inference.reconstruction.posed_views import PosedViews
from inference.reconstruction.views.ray_batches import RayBatch, ViewTensors, ray_batches
from inference.reconstruction.views.visual_hull import mean_colours, visual_hull

HALF_SIDE = 0.55  # half the side of the grid's cube: a unit object with a margin
EMPTY = (-10.0, 0.0, 0.0, 0.0)  # raw density and colours: softplus(3 · -10) is 0
DENSITY_SCALE = 3.0  # of the raw density, whose learning rate it multiplies
START_OPACITY = 0.2  # of one node's spacing, within the hull
OnStep = Callable[[float], object]  # called with the loss


@dataclass(frozen=True)
class Level:
    """One level of a fit: nodes per axis, largest side of the pictures in pixels, passes over all rays."""

    nodes: int
    resolution: int
    epochs: int


@dataclass(frozen=True)
class FitSettings:
    """Settings of a fit.

    Attributes:
        levels: From coarse to fine.
        rate: Learning rate at the start of each level, which falls to a tenth.
        mask_weight: Weight of the mask loss.
        smoothness: Weight of the total variation of the opacity.
        hull_level: Lowest occupancy of the soft visual hull that is fitted.
        tolerated: Views that may contradict the visual hull.
    """

    levels: tuple[Level, ...] = (Level(64, 64, 8), Level(128, 128, 4), Level(192, 256, 2))
    rate: float = 0.1
    mask_weight: float = 0.5
    smoothness: float = 0.02
    hull_level: float = 0.1
    tolerated: int = 0


def fit_views(
    views: PosedViews, settings: FitSettings, seed: int, device: torch.device, on_step: OnStep = lambda loss: None
) -> VoxelGrid:
    """Fit a radiance grid to views; its values are colours before the sigmoid.

    Args:
        views: At least two views.
        settings: Levels and weights.
        seed: Seed of the order of the rays and the places of their samples.
        device: Device of the fit.
        on_step: Called after each step.

    Raises:
        UserError: No point lies within the silhouettes of the views.
    """
    tensors, generator = to_tensors(views, device), torch.Generator().manual_seed(seed)
    grid: VoxelGrid | None = None
    for level in settings.levels:
        grid = start(tensors, level.nodes, settings) if grid is None else refined(grid, level.nodes)
        fit_level(grid, tensors.at(level.resolution), level.epochs, settings, generator, on_step)
    assert grid is not None
    return grid


def to_tensors(views: PosedViews, device: torch.device) -> ViewTensors:
    """Return views as tensors on a device."""
    pictures = torch.from_numpy(views.pictures).permute(0, 3, 1, 2).float() / 255
    parts = (
        torch.from_numpy(views.cameras).float(),
        pictures,
        torch.from_numpy(views.masks),
        torch.from_numpy(views.weights),
    )
    return ViewTensors(*(part.to(device) for part in parts))


def start(views: ViewTensors, nodes: int, settings: FitSettings) -> VoxelGrid:
    """Return the grid that a fit starts from: the soft visual hull, half transparent, with the views' mean colours."""
    whole = VoxelGrid(nodes, HALF_SIDE, EMPTY)
    hull = visual_hull(whole.positions().to(views.cameras_N34), views.cameras_N34, views.masks_NRR, settings.tolerated)
    active = (hull > settings.hull_level).view((nodes,) * 3)
    if not active.any():
        raise UserError("the silhouettes of the views have no point in common; give another picture or seed")
    grid = VoxelGrid(nodes, HALF_SIDE, EMPTY, dilated(active, 1))
    positions = grid.positions().to(views.cameras_N34)
    colours = mean_colours(positions, views.cameras_N34, views.pictures_N3RR, views.masks_NRR)
    inside = hull.view((nodes,) * 3)[grid.active]
    with torch.no_grad():
        grid.raw[1:, 0] = torch.logit(inside.clamp(0.02, 0.98)) / DENSITY_SCALE + inverse_density(START_OPACITY)
        grid.raw[1:, 1:] = torch.logit(colours.clamp(0.02, 0.98))
    return grid


def inverse_density(opacity: float) -> float:
    """Return the raw density at which one node's spacing has an opacity."""
    optical = torch.tensor(-np.log(1 - opacity))
    return float(torch.log(torch.expm1(optical))) / DENSITY_SCALE


def activate(raw_MC: Tensor, spacing: float) -> tuple[Tensor, Tensor]:
    """Return density σ `[M]`, softplus(3 raw) / spacing, and colours `[M, 3]` in [0, 1] of raw values `[M, 4]`."""
    return functional.softplus(DENSITY_SCALE * raw_MC[:, 0]) / spacing, raw_MC[:, 1:].sigmoid()


def refined(grid: VoxelGrid, nodes: int) -> VoxelGrid:
    """Return the field on a finer grid, active near the places that are not empty."""
    with torch.no_grad():
        opacity = node_opacity(grid)
        occupied = dilated(opacity > 0.05, 1)[None, None].float()
        active = functional.interpolate(occupied, (nodes,) * 3, mode="trilinear", align_corners=True)[0, 0] > 0
    return grid.resampled(nodes, active)


def node_opacity(grid: VoxelGrid) -> Tensor:
    """Return the opacity `[N, N, N]` of one spacing at each node."""
    return -torch.expm1(-functional.softplus(DENSITY_SCALE * grid.dense()))


def dilated(mask_NNN: Tensor, nodes: int) -> Tensor:
    """Return a mask grown by `nodes` in all directions."""
    return functional.max_pool3d(mask_NNN[None, None].float(), 2 * nodes + 1, stride=1, padding=nodes)[0, 0].bool()


def fit_level(
    grid: VoxelGrid,
    views: ViewTensors,
    epochs: int,
    settings: FitSettings,
    generator: torch.Generator,
    on_step: OnStep,
) -> None:
    """Fit the active nodes of a grid to views in `epochs` passes over their rays."""
    batches = ray_batches(grid, views, grid.spacing, generator)
    optimizer = torch.optim.Adam([grid.raw], lr=settings.rate, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.1 ** (1 / max(1, epochs * len(batches))))
    edges = neighbours(grid)
    for _ in range(epochs):
        for number in torch.randperm(len(batches), generator=generator).tolist():
            optimizer.zero_grad()
            loss = batch_loss(grid, batches[number], settings)
            (loss + settings.smoothness * variation(grid, edges)).backward()
            optimizer.step()
            schedule.step()
            on_step(float(loss.detach()))


def batch_loss(grid: VoxelGrid, batch: RayBatch, settings: FitSettings) -> Tensor:
    """Return the robust loss of colours on white and of coverage, weighted by the views."""
    rendered = render_batch(grid, batch)
    colour = functional.smooth_l1_loss(rendered.on(torch.ones(1)), batch.colour_R3, beta=0.1, reduction="none").mean(
        dim=1
    )
    mask = functional.smooth_l1_loss(rendered.opacity_R, batch.mask_R, beta=0.1, reduction="none")
    return (batch.weight_R * (colour + settings.mask_weight * mask)).mean()


def render_batch(grid: VoxelGrid, batch: RayBatch) -> Rendered:
    """Render the rays of a batch."""
    raw = gather(grid.raw, batch.rows_M8, batch.weights_M8)
    return composite(*activate(raw, grid.spacing), batch.samples)


def neighbours(grid: VoxelGrid) -> Tensor:
    """Return the rows `[E, 2]` of neighbouring active nodes."""
    rows = grid.rows.view((grid.nodes,) * 3)
    pairs = [
        torch.stack([rows.narrow(axis, 0, grid.nodes - 1), rows.narrow(axis, 1, grid.nodes - 1)]).flatten(1)
        for axis in range(3)
    ]
    edges = torch.cat(pairs, dim=1)
    return edges[:, (edges > 0).all(dim=0)]


def variation(grid: VoxelGrid, edges_2E: Tensor) -> Tensor:
    """Return the mean absolute difference of the opacity between neighbouring nodes."""
    opacity = -torch.expm1(-functional.softplus(DENSITY_SCALE * grid.raw[:, 0]))
    one, two = opacity[edges_2E]
    return (one - two).abs().mean()
