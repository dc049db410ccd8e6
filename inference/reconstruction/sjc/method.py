"""Reconstruct an object by score Jacobian chaining: optimise the field, then render the views that colour the mesh."""

import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference.reconstruction.config import ViewsSettings
from inference.reconstruction.fitted_field import FittedField
from inference.reconstruction.guidance.guide import DrawnViews, Guide
from inference.reconstruction.monitor import Monitor
from inference.reconstruction.posed_views import PosedViews
from inference.reconstruction.sjc.field import Canvases, SjcField
from inference.reconstruction.sjc.fit import fit_scores
from inference.reconstruction.sjc.settings import SjcSettings
from inference.reconstruction.sjc.unseen import solid_density
from inference.reconstruction.views.ring import ring_cameras
from rendering.cameras import Array
from rendering.psnr import psnr

RENDERED_TOGETHER = 2  # canvases
PREVIEW_VIEWS = 4


def reconstruct_by_scores(
    guide: Guide,
    photograph: DrawnViews,
    settings: SjcSettings,
    rings: ViewsSettings,
    seed: int,
    monitor: Monitor,
    state: Path | None = None,
) -> FittedField:
    """Optimise a field by the scores of a guide.

    Args:
        guide: The posed denoiser.
        photograph: The prepared input picture, one view.
        settings: Settings of the optimisation.
        rings: Cameras of the renders that the mesh is coloured from.
        seed: Seed of cameras, noise and initial values.
        monitor: Follows the progress.
        state: File of the optimisation's state, which is continued if it exists.

    Raises:
        UserError: The optimisation does not stay finite.
    """
    cameras = np.concatenate(
        [guide.input_camera[None], ring_cameras(guide.input_camera, rings.elevations, rings.count)]
    )
    begin = time.monotonic()
    previewed = cameras[np.linspace(0, len(cameras) - 1, PREVIEW_VIEWS).round().astype(int)]

    def on_step(done: int, loss: float, field: SjcField) -> None:
        monitor.on_progress("optimising", done, settings.steps, loss)
        monitor.on_preview(lambda: np.concatenate(list(render_pictures(guide, field, previewed)[0]), axis=1))

    field = fit_scores(guide, photograph.pictures[0], settings, seed, on_step, state)
    pictures, opacity, canvases = render_pictures(guide, field, cameras)
    weights = np.ones(len(cameras), dtype=np.float32)
    weights[0] = rings.photograph_weight
    views = PosedViews(
        cameras,
        np.concatenate([photograph.pictures, pictures[1:]]),
        np.concatenate([photograph.masks, opacity[1:]]),
        weights,
    )
    scores = {"photograph_db": psnr(pictures[0], photograph.pictures[0])}
    renders = PosedViews(cameras, pictures, opacity, weights)
    density = solid_density(field, cameras).cpu().numpy()
    colours = _colours(field, canvases, pictures)
    seconds = {"fit": time.monotonic() - begin}
    return FittedField(settings.half_side, density, colours, views, renders, scores, seconds)


@torch.no_grad()
def render_pictures(
    guide: Guide, field: SjcField, cameras: Array
) -> tuple[NDArray[np.uint8], NDArray[np.float32], Tensor]:
    """Return the field's pictures `[N, R, R, 3]`, opacities `[N, R, R]` and canvases `[N, K, S, S]` from cameras."""
    parts = list[tuple[Tensor, Tensor, Tensor]]()
    occupied = field.occupied_cells()
    for start in range(0, len(cameras), RENDERED_TOGETHER):
        rendered: Canvases = field.render(cameras[start : start + RENDERED_TOGETHER], guide.canvas_size, occupied)
        pictures = guide.decode_canvas(rendered.values)
        size = pictures.shape[-2:]
        opacity = torch.nn.functional.interpolate(rendered.opacities[:, None], size, mode="bilinear")[:, 0]
        parts.append((pictures, opacity, rendered.values))
    pictures, opacity, canvases = (torch.cat(column) for column in zip(*parts, strict=True))
    pixels = ((pictures + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1)
    return pixels.cpu().numpy(), opacity.clamp(0, 1).cpu().numpy(), canvases


@torch.no_grad()
def _colours(field: SjcField, canvases: Tensor, pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the colours of the field's nodes, uint8 `[N, N, N, 3]`.

    Latents become colours by the linear map that fits the decoded renders best.
    """
    nodes = field.values.nodes
    values = field.values.raw[1:]
    if field.bounded:
        rgb = values.sigmoid()
    else:
        size = canvases.shape[-2:]
        truth = torch.from_numpy(pictures).permute(0, 3, 1, 2).to(canvases) / 255
        truth = torch.nn.functional.interpolate(truth, size, mode="area").permute(0, 2, 3, 1).reshape(-1, 3)
        known = canvases.permute(0, 2, 3, 1).reshape(len(truth), -1)
        one = torch.ones(len(known), 1, device=known.device)
        solution = torch.linalg.lstsq(torch.cat([known, one], dim=1), truth).solution
        rgb = values @ solution[:-1] + solution[-1]
    colours: NDArray[np.uint8] = (rgb * 255).round().clamp(0, 255).byte().view(nodes, nodes, nodes, 3).cpu().numpy()
    return colours
