"""Optimise a radiance field by score Jacobian chaining.

random camera ── render ──▶ canvas y ── encode ──▶ latent ── denoised ──▶ gradient of y
                              │ nearby camera ── near-view loss
input camera ── render ──▶ decode ── squared error to the picture
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from conf.options import UserError
from inference.reconstruction.guidance.guide import Guide, shows_pixels
from inference.reconstruction.sjc.cameras import nearby_camera, sample_camera
from inference.reconstruction.sjc.field import SjcField
from inference.reconstruction.sjc.losses import denoised, emptiness, roughness, score_loss
from inference.reconstruction.sjc.settings import SjcSettings
from inference.reconstruction.sjc.state import FitState, load_state, save_state
from training.model.picture import as_floats

OCCUPANCY_STEPS = 16  # between two searches for empty cells
SAVE_STEPS = 500
ANNEALED_SHARE = 1 / 3  # of the steps, in which the range of timesteps is lowered (threestudio, configs/zero123.yaml)
NOISIEST, CLEANEST = (0.85, 0.5), (0.4, 0.2)  # that range at the start and the end, as shares of all timesteps
OnStep = Callable[[int, float, SjcField], object]  # called with steps done, loss of the input view, field


def fit_scores(
    guide: Guide,
    picture: NDArray[np.uint8],
    settings: SjcSettings,
    seed: int,
    on_step: OnStep,
    saved: Path | None = None,
    save_steps: int = SAVE_STEPS,
) -> SjcField:
    """Optimise a field so that its renders are likely views of the object.

    Args:
        guide: The posed denoiser.
        picture: The input picture `[R, R, 3]`.
        settings: Weights and ranges.
        seed: Seed of cameras, noise and initial values.
        on_step: Called after each step with the steps done, the loss of the input view and the field.
        saved: File of the state, which is continued if it exists. The caller removes it when settings or seed change.
        save_steps: Steps between two writes of that file.

    Raises:
        UserError: The optimisation does not stay finite, or the file is damaged.
    """
    picture_3RR = as_floats(torch.tensor(picture, device=guide.alphas_cumprod.device).permute(2, 0, 1))
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    field = SjcField(settings, guide.white(), shows_pixels(guide), generator)
    state = FitState(field, torch.optim.Adamax(field.parameters(), lr=settings.rate), rng, generator)
    if saved is not None and saved.exists():
        load_state(saved, state)
    while state.step < settings.steps:
        if state.step % OCCUPANCY_STEPS == 1:
            state.occupied = field.occupied_cells()
        state.optimizer.zero_grad()
        loss, input_loss = step_loss(field, guide, picture_3RR, settings, state.step, state.occupied, rng, generator)
        if not torch.isfinite(loss):
            raise UserError(f"the optimisation diverged in step {state.step}; lower sjc.rate or sjc.guidance")
        loss.backward()
        state.optimizer.step()
        state.step += 1
        if saved is not None and state.step % save_steps == 0:
            save_state(saved, state)
        on_step(state.step, float(input_loss), field)
    return field


def step_loss(
    field: SjcField,
    guide: Guide,
    picture_3RR: Tensor,
    settings: SjcSettings,
    step: int,
    occupied: Tensor | None,
    rng: np.random.Generator,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Return the loss of one step, and the squared error of the input view."""
    camera = sample_camera(rng, settings)
    nearby = nearby_camera(rng, camera, settings.near_distance)
    views = field.render(np.stack([guide.input_camera, camera, nearby]), guide.canvas_size, occupied)
    input_loss = (guide.decode_canvas(views.values[:1]) - picture_3RR).square().mean()
    near_loss = (views.values[2] - views.values[1]).abs().mean() + (
        views.distances[2] - views.distances[1]
    ).abs().mean()
    loss = settings.input_weight * input_loss + settings.near_weight * near_loss
    loss = loss + settings.input_smooth_weight * roughness(views.distances[0])
    if step >= settings.steps / 2:
        loss = loss + settings.smooth_weight * roughness(views.distances[1])
    if settings.emptiness_weight:
        grown = settings.emptiness_weight * (1 + settings.emptiness_growth * step / settings.steps)
        loss = loss + grown * emptiness(views.weights_M, settings.emptiness_scale, views.samples)
    latent = guide.encode_canvas(views.values[1:2])
    timestep = sample_timestep(rng, settings, step, len(guide.alphas_cumprod))
    clean, sigma = denoised(guide, latent.detach(), camera, timestep, settings.guidance, generator)
    loss = loss + score_loss(latent, clean, sigma)
    if settings.mask_weight:
        silhouette = guide.silhouettes(clean, camera[None])
        loss = loss + settings.mask_weight * score_loss(views.opacities[1:2], silhouette, sigma)
    return loss, input_loss.detach()


def sample_timestep(rng: np.random.Generator, settings: SjcSettings, step: int, timesteps: int) -> int:
    """Return a timestep uniform in the range of the settings, which is lowered during annealing."""
    if not settings.anneal:
        return int(rng.integers(settings.skip_cleanest, timesteps - settings.skip_noisiest))
    progress = min(1.0, step / (ANNEALED_SHARE * settings.steps))
    low, high = (start + progress * (end - start) for start, end in (CLEANEST, NOISIEST))
    return int(rng.integers(round(low * timesteps), round(high * timesteps)))
