"""Fit a radiance grid to views, from coarse to fine.

    masks ── visual hull ──▶ active nodes ── fit at 64³ ──▶ density ──▶ active nodes ── fit at 128³ ──▶ … ──▶ grid

Channel 0 of the grid is the raw density, the others are colours before the sigmoid.
"""

import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional

from conf.options import UserError
from inference.reconstruction.config import ViewsSettings
from inference.reconstruction.field.rays import project
from inference.reconstruction.field.volume_rendering import composite
from inference.reconstruction.field.voxel_grid import VoxelGrid, gather
from inference.reconstruction.posed_views import PosedViews
from inference.reconstruction.views.activation import DENSITY_SCALE, EMPTY, activate, opacity, raw_density
from inference.reconstruction.views.ray_batches import RayBatch, ViewTensors, ray_batches
from inference.reconstruction.views.visual_hull import mean_colours, visual_hull

HALF_SIDE = 0.55  # half the side of the grid's cube: a unit object with a margin
START_OPACITY = 0.02  # of one spacing within the hull: more hides the inside of cups from the fit
DRAWN_SMOOTHNESS = 1.0  # weight of the variation of opacity for views that contradict each other
MIN_COVERED = 0.9  # share of the photograph's silhouette that the hull must cover
COVERED_PX = 32  # side of the silhouette that this is measured on
SURFACE_OPACITY = 0.05  # of one spacing; nodes beside such nodes are active at the next level
OnStep = Callable[[VoxelGrid, int, int, float], object]  # called with the grid, steps done, steps in total, loss


def ignore_step(grid: VoxelGrid, done: int, total: int, loss: float) -> None:
    """Take the place of a callback."""


def to_tensors(views: PosedViews, device: torch.device) -> ViewTensors:
    """Return views as tensors on a device."""
    pictures = torch.tensor(views.pictures).permute(0, 3, 1, 2).float() / 255
    parts = (torch.tensor(views.cameras).float(), pictures, torch.tensor(views.masks), torch.tensor(views.weights))
    return ViewTensors(*(part.to(device) for part in parts))


def fit_views(
    views: ViewTensors,
    settings: ViewsSettings,
    seed: int,
    on_step: OnStep = ignore_step,
    levels: int | None = None,
) -> VoxelGrid:
    """Fit a radiance grid to views.

    Args:
        views: At least two views; the first is the photograph, in whose silhouette every point must lie.
        settings: Levels and weights.
        seed: Seed of the order of the rays and the places of their samples.
        on_step: Called after each step; the total is an estimate until the last level.
        levels: Number of levels, from the coarsest; None for all.

    Raises:
        UserError: No point lies within the silhouettes of the views, or the fit leaves nothing opaque.
    """
    generator, plan = torch.Generator().manual_seed(seed), resolved_levels(settings, views.masks_NRR.shape[-1])
    grid, done = start(views, settings.nodes[0], settings), 0
    for number, (nodes, epochs) in enumerate(plan[:levels]):
        if number:
            grid = refined(grid, nodes)
        batches = ray_batches(grid, views.at(side_at(nodes)), grid.spacing, generator)
        later = sum(e * len(batches) * (n / nodes) ** 2 for n, e in plan[:levels][number + 1 :])
        steps = fit_level(grid, batches, epochs, settings, generator)
        for step, loss in enumerate(steps, 1):
            on_step(grid, done + step, round(done + epochs * len(batches) + later), loss)
        done += epochs * len(batches)
    return grid


def resolved_levels(settings: ViewsSettings, resolution: int) -> list[tuple[int, int]]:
    """Return nodes and epochs of the levels that pictures of `resolution` pixels per side can tell apart."""
    levels = list(zip(settings.nodes, settings.epochs, strict=True))
    return levels[:1] + [(nodes, epochs) for nodes, epochs in levels[1:] if nodes <= 2 * resolution]


def side_at(nodes: int) -> int:
    """Return the side of pictures, in pixels, that a grid of `nodes` resolves.

    At the mean distance of the training's cameras the frame is half as large again as the grid's cube.
    """
    return 3 * nodes // 2


def start(views: ViewTensors, nodes: int, settings: ViewsSettings) -> VoxelGrid:
    """Return the grid that a fit starts from: the soft visual hull, half transparent, with the views' mean colours.

    Raises:
        UserError: No point lies within the silhouettes of the views.
    """
    positions = VoxelGrid(nodes, HALF_SIDE, EMPTY).positions().to(views.cameras_N34)
    hull = tolerant_hull(positions, views, settings).view((nodes,) * 3)
    grid = VoxelGrid(nodes, HALF_SIDE, EMPTY, dilated(hull > settings.hull_level))
    colours = mean_colours(grid.positions(), views.cameras_N34, views.pictures_N3RR, views.masks_NRR)
    with torch.no_grad():
        inside = torch.logit(hull[grid.active].clamp(0.02, 0.98)) / DENSITY_SCALE
        grid.raw[1:, 0] = inside + raw_density(START_OPACITY)
        grid.raw[1:, 1:] = torch.logit(colours.clamp(0.02, 0.98))
    return grid


def tolerant_hull(positions_P3: Tensor, views: ViewTensors, settings: ViewsSettings) -> Tensor:
    """Return the soft visual hull `[P]` that tolerates as few drawn views as leave it to cover the photograph.

    Raises:
        UserError: The photograph's silhouette is empty, or there is no such hull.
    """
    if not views.masks_NRR[0].any():
        raise UserError("the input's silhouette is empty, as of a white object; give a picture that differs from white")
    drawn = len(views.masks_NRR) - 1
    for tolerated in range(int(settings.tolerated * drawn), drawn // 2 + 1):
        hull_P = visual_hull(positions_P3, views.cameras_N34, views.masks_NRR, tolerated)
        inside = positions_P3[hull_P > settings.hull_level]
        if covered_share(inside, views.cameras_N34[:1], views.masks_NRR[0]) > MIN_COVERED:
            return hull_P
    raise UserError("the views contradict each other: no shape has their silhouettes; try another sampling.seed")


def covered_share(points_P3: Tensor, camera_134: Tensor, mask_RR: Tensor) -> float:
    """Return the share of a silhouette, not empty, that points project onto, at `COVERED_PX`² pixels."""
    coverage = functional.adaptive_avg_pool2d(mask_RR[None], COVERED_PX)[0]
    mask = coverage > 0.5 * coverage.max()  # a thin object covers no pixel by half
    places = project(points_P3, camera_134)[0]
    pixels = ((places + 1) / 2 * COVERED_PX).long()
    x, y = pixels[((pixels >= 0) & (pixels < COVERED_PX)).all(dim=1)].unbind(1)
    hit = torch.zeros_like(mask)
    hit[y, x] = True
    return float((hit & mask).sum() / mask.sum())


def refined(grid: VoxelGrid, nodes: int) -> VoxelGrid:
    """Return the field on a grid of `nodes` per axis, active near the places that are not empty.

    Raises:
        UserError: All places are empty.
    """
    with torch.no_grad():
        occupied = dilated(opacity(grid.dense()) > SURFACE_OPACITY)[None, None].float()
        active = functional.interpolate(occupied, (nodes,) * 3, mode="trilinear", align_corners=True)[0, 0] > 0
    if not active.any():
        raise UserError("the views contradict each other: the fit leaves nothing opaque; try another sampling.seed")
    return grid.resampled(nodes, active)


def dilated(mask_NNN: Tensor) -> Tensor:
    """Return a mask grown by one node in all directions."""
    return functional.max_pool3d(mask_NNN[None, None].float(), 3, stride=1, padding=1)[0, 0].bool()


def fit_level(
    grid: VoxelGrid, batches: list[RayBatch], epochs: int, settings: ViewsSettings, generator: torch.Generator
) -> Iterator[float]:
    """Fit the active nodes of a grid in `epochs` passes over batches of rays; yield the loss of each step."""
    optimizer = torch.optim.Adam([grid.raw], lr=settings.rate, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.1 ** (1 / (epochs * len(batches))))
    edges, smoothness = neighbours(grid), DRAWN_SMOOTHNESS if settings.smoothness is None else settings.smoothness
    orders = (torch.randperm(len(batches), generator=generator).tolist() for _ in range(epochs))
    for number in itertools.chain.from_iterable(orders):
        optimizer.zero_grad()
        loss = batch_loss(grid, batches[number], settings)
        (loss + smoothness * variation(grid, edges)).backward()
        optimizer.step()
        schedule.step()
        yield float(loss.detach())


def batch_loss(grid: VoxelGrid, batch: RayBatch, settings: ViewsSettings) -> Tensor:
    """Return the robust loss of colours on white and of coverage, weighted by the views."""
    raw = gather(grid.raw, batch.rows_M8, batch.weights_M8)
    rendered = composite(*activate(raw, grid.spacing), batch.samples)
    on_white = rendered.on(torch.ones(1, device=raw.device))
    colour_R3 = functional.smooth_l1_loss(on_white, batch.colour_R3, beta=0.1, reduction="none")
    mask_R = functional.smooth_l1_loss(rendered.opacity_R, batch.mask_R, beta=0.1, reduction="none")
    return (batch.weight_R * (colour_R3.mean(dim=1) + settings.mask_weight * mask_R)).mean()


def neighbours(grid: VoxelGrid) -> Tensor:
    """Return the rows `[2, E]` of neighbouring active nodes."""
    rows, last = grid.rows.view((grid.nodes,) * 3), grid.nodes - 1
    pairs = [torch.stack([rows.narrow(axis, 0, last), rows.narrow(axis, 1, last)]).flatten(1) for axis in range(3)]
    edges = torch.cat(pairs, dim=1)
    return edges[:, (edges > 0).all(dim=0)]


def variation(grid: VoxelGrid, edges_2E: Tensor) -> Tensor:
    """Return the mean absolute difference of the opacity between neighbouring nodes."""
    opacity_V = opacity(grid.raw[:, 0])
    one, two = (opacity_V.index_select(0, rows) for rows in edges_2E)  # its gradient takes half the time of indexing's
    return (one - two).abs().mean()
