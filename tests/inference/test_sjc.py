"""Score Jacobian chaining: cameras, losses, the rendered field, and fits to the scores of a known object."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
import trimesh

from conf.options import FieldError, UserError
from inference.meshes.ray_casting import RayCaster
from inference.meshes.read_mesh import normalised
from inference.meshes.scores import volume_iou
from inference.meshes.textured_mesh import TexturedMesh
from inference.poses import cameras_after
from inference.reconstruction.guidance.oracle_guide import OracleGuide
from inference.reconstruction.sjc.cameras import nearby_camera, sample_camera
from inference.reconstruction.sjc.field import BACKGROUND_DISTANCE, SjcField
from inference.reconstruction.sjc.fit import fit_scores, sample_timestep
from inference.reconstruction.sjc.losses import denoised, emptiness, roughness, score_loss
from inference.reconstruction.sjc.settings import PIXELS, PUBLISHED, SjcOptions, SjcSettings
from inference.reconstruction.sjc.unseen import solid_density
from inference.reconstruction.surface.extraction import extract_surface
from inference.reconstruction.surface.simplification import make_solid
from inference.reconstruction.views.ring import ring_cameras
from rendering.cameras import FOV_DEGREES, camera_centre, look_at_origin

SMALL = replace(PIXELS, nodes=32)
WHITE = np.full((1, 1, 4), 255, dtype=np.uint8)
CAMERA = cameras_after([(0, 0, 0)], 20.0)[0]


def coloured(vertices, faces, colours) -> TexturedMesh:
    blank = np.zeros((len(faces), 3, 2)), np.zeros(len(faces), dtype=np.int64), (WHITE,)
    return normalised(TexturedMesh(np.asarray(vertices, dtype=float), np.asarray(faces), *blank, colours))


def blob() -> TexturedMesh:
    sphere = trimesh.creation.icosphere(subdivisions=4)
    x, y, z = directions = sphere.vertices.T
    radius = 1 + 0.2 * np.sin(3 * x) * np.cos(2 * y + 1) + 0.15 * z**3
    vertices = (directions * radius).T * [1, 0.8, 0.9]
    return coloured(vertices, sphere.faces, ((sphere.vertices * 0.4 + 0.5) * 255).clip(0, 255).astype(np.uint8))


def box() -> TexturedMesh:
    solid = trimesh.creation.box((1, 0.7, 0.5))
    vertices = solid.vertices[solid.faces].reshape(-1, 3)
    side = np.abs(solid.face_normals).argmax(axis=1) * 2 + (solid.face_normals.sum(axis=1) > 0)
    palette = [[200, 40, 40], [40, 160, 40], [40, 60, 200], [220, 180, 40], [150, 40, 160], [40, 170, 170]]
    colours = np.repeat(np.array(palette, dtype=np.uint8)[side], 3, axis=0)
    return coloured(vertices, np.arange(len(vertices)).reshape(-1, 3), colours)


def fitted(mesh: TexturedMesh, settings: SjcSettings, size: int = 32, seed: int = 0, losses=None, **saving) -> SjcField:
    guide = OracleGuide(RayCaster(mesh), CAMERA, size)
    picture = guide.draw(CAMERA[None], 0, lambda done, total: None).pictures[0]
    losses = [] if losses is None else losses
    on_step = lambda step, loss, field: losses.append(loss)  # noqa: E731
    return fit_scores(guide, picture, settings, seed, on_step, **saving)


def iou(field: SjcField, mesh: TexturedMesh) -> float:
    cameras = np.concatenate([CAMERA[None], ring_cameras(CAMERA, [-14.0, 15.0, 45.0, 75.0], 8)])
    density = solid_density(field, cameras).numpy()
    vertices, faces = make_solid(*extract_surface(density, field.density.half_side))
    return volume_iou(coloured_as_is(vertices, faces), mesh)


def coloured_as_is(vertices, faces) -> TexturedMesh:
    return TexturedMesh(vertices, faces, np.zeros((len(faces), 3, 2)), np.zeros(len(faces), dtype=np.int64), (WHITE,))


def ball_field(settings: SjcSettings, channels: int = 3) -> SjcField:
    """Return a field with an opaque ball of radius 0.3, blurred at its border, in random colours."""
    field = SjcField(settings, torch.ones(channels), channels == 3, torch.Generator().manual_seed(0))
    with torch.no_grad():
        field.density.raw[1:, 0] = (0.3 - field.density.positions().norm(dim=1)) * 2000
    return field


def test_cameras_are_in_the_published_ranges_and_look_at_the_origin():
    rng = np.random.default_rng(0)
    cameras = np.stack([sample_camera(rng, PUBLISHED) for _ in range(2000)])
    centres = camera_centre(cameras)
    radii = np.linalg.norm(centres, axis=1)
    assert 1.8 < radii.min() < 1.81 and 2.19 < radii.max() < 2.2
    assert -0.5 < centres[:, 2].min() < -0.48 and centres[:, 2].max() > 2.05
    # The origin is at [0, 0, -radius] of each camera.
    np.testing.assert_allclose(cameras[:, :, 3], np.stack([0 * radii, 0 * radii, -radii], axis=1), atol=1e-12)
    # Normalised samples of a cube are sparse along the axes; of a hemisphere, 0.1 are this high.
    free = centres[centres[:, 2] > 0, 2] / radii[centres[:, 2] > 0]
    assert (free > 0.9).mean() < 0.08


def test_a_nearby_camera_is_at_its_distance_and_looks_at_the_origin():
    near = nearby_camera(np.random.default_rng(1), look_at_origin([2.0, 0, 0]), 0.05)
    assert np.linalg.norm(camera_centre(near) - [2, 0, 0]) == pytest.approx(0.05)
    np.testing.assert_allclose(near[:2, 3], 0, atol=1e-12)


def test_the_ladder_leaves_out_30_noisy_and_10_clean_timesteps():
    rng = np.random.default_rng(0)
    drawn = [sample_timestep(rng, PUBLISHED, 0, 1000) for _ in range(20_000)]
    assert (min(drawn), max(drawn)) == (10, 969)  # us[30:-10] of a ladder whose first entry is timestep 999


def test_annealing_lowers_the_range_of_timesteps():
    rng, settings = np.random.default_rng(0), replace(PUBLISHED, anneal=True, steps=600)
    first = [sample_timestep(rng, settings, 0, 1000) for _ in range(5000)]
    later = [sample_timestep(rng, settings, step, 1000) for step in (200, 599) for _ in range(5000)]
    assert (min(first), max(first)) == (400, 849)
    assert (min(later), max(later)) == (200, 499)


class KnownDenoiser:
    """A denoiser that returns a constant, or the noisy latents that it is given as perturbed ones."""

    alphas_cumprod = torch.tensor([0.9, 0.5, 0.2])

    def __init__(self, constant: float | None) -> None:
        self.constant, self.calls = constant, []

    def denoise(self, noisy, timesteps, cameras, scale):
        self.calls.append((noisy, timesteps.tolist(), len(cameras), scale))
        alpha = self.alphas_cumprod[timesteps][:, None, None, None]
        return noisy / alpha.sqrt() if self.constant is None else torch.full_like(noisy, self.constant)


def gradient_of_score(latents: torch.Tensor, clean: torch.Tensor, sigma: float) -> torch.Tensor:
    """Return minus the gradient of `score_loss` with respect to the latents."""
    variable = latents.clone().requires_grad_()
    score_loss(variable, clean, sigma).backward()
    return -variable.grad


def test_the_score_is_the_denoised_minus_the_clean_latents_by_sigma():
    latents, guide = torch.full((1, 4, 2, 2), 0.5), KnownDenoiser(2.0)
    clean, sigma = denoised(guide, latents, CAMERA, 2, 3.0, torch.Generator().manual_seed(0))
    score = gradient_of_score(latents, clean, sigma)
    torch.testing.assert_close(score, torch.full_like(latents, 0.75))  # ᾱ = 0.2, σ = √(0.8 / 0.2) = 2; (2 - 0.5) / 2
    assert guide.calls[0][1:] == ([2], 1, 3.0)


def test_the_noise_of_the_score_has_the_variance_of_its_timestep():
    latents = torch.full((1, 4, 64, 64), 0.5)
    clean, sigma = denoised(KnownDenoiser(None), latents, CAMERA, 2, 1.0, torch.Generator().manual_seed(0))
    score = gradient_of_score(latents, clean, sigma)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(score, noise)  # z = y + σn, hence (z - y) / σ = n


def test_roughness_is_the_mean_difference_of_neighbours():
    distances = torch.tensor([[1.0, 2.0], [1.0, 5.0]])
    assert roughness(distances).item() == pytest.approx(((0 + 3) / 2 + (1 + 4) / 2) / 2)


def test_emptiness_is_the_mean_logarithm_over_all_samples():
    weights = torch.tensor([0.1, 0.4])
    assert emptiness(weights, 10.0, 4).item() == pytest.approx((np.log(2) + np.log(5)) / 4)
    # One surface costs less than fog of the same opacity.
    assert emptiness(torch.tensor([1.0]), 10.0, 10) < emptiness(torch.full((10,), 0.1), 10.0, 10)


def test_an_empty_field_shows_the_background_at_its_distance():
    field = SjcField(replace(PUBLISHED, nodes=16), torch.tensor([0.1, 0.2, 0.3, 0.4]), False, torch.Generator())
    with torch.no_grad():
        field.density.raw.fill_(-100)
    canvases = field.render(CAMERA[None], 8, field.occupied_cells())
    torch.testing.assert_close(canvases.values, field.background[None, :, None, None].expand(1, 4, 8, 8))
    assert (canvases.distances == BACKGROUND_DISTANCE).all() and not canvases.opacities.any()
    assert len(canvases.weights_M) == 0 < canvases.samples


def test_an_opaque_ball_is_seen_at_the_distance_of_its_front():
    field = ball_field(replace(PUBLISHED, nodes=80))
    canvases = field.render(CAMERA[None], 9, field.occupied_cells())
    radius = np.linalg.norm(camera_centre(CAMERA))
    assert canvases.opacities[0, 4, 4] > 0.999
    assert canvases.distances[0, 4, 4].item() == pytest.approx(radius - 0.3, abs=0.05)


def test_a_field_starts_as_fog_of_the_published_density():
    field = SjcField(PUBLISHED, torch.ones(4), False, torch.Generator())
    # softplus(-1) = 0.3133 per object size, over the 2 object sizes that the central ray of a camera at z = 0 crosses
    canvases = field.render(look_at_origin([2.0, 0, 0])[None], 3)
    assert canvases.opacities[0, 1, 1].item() == pytest.approx(1 - np.exp(-0.31326 * 2), abs=0.003)


def test_skipping_empty_cells_hardly_changes_a_render():
    field = ball_field(replace(PUBLISHED, nodes=48))
    rng = np.random.default_rng(0)
    cameras = np.stack([sample_camera(rng, PUBLISHED) for _ in range(3)])
    with torch.no_grad():
        whole, skipped = (field.render(cameras, 24, occupied) for occupied in (None, field.occupied_cells()))
    assert len(skipped.weights_M) < len(whole.weights_M) / 5
    assert skipped.samples == whole.samples
    torch.testing.assert_close(skipped.values, whole.values, atol=1e-3, rtol=0)
    torch.testing.assert_close(skipped.distances, whole.distances, atol=1e-2, rtol=0)


def test_the_inside_that_no_camera_sees_is_solid():
    field = ball_field(replace(PUBLISHED, nodes=64, half_side=0.6))
    nodes = field.density.positions()
    with torch.no_grad():  # hollow, and open below, where no camera looks
        field.density.raw[1:, 0][nodes.norm(dim=1) < 0.22] = -100
        field.density.raw[1:, 0][(nodes[:, 2] < -0.2) & (nodes[:, :2].norm(dim=1) < 0.1)] = -100
    cameras = ring_cameras(CAMERA, [0.0, 60.0], 5)
    hollow, solid = (
        grid.detach()[:, :, :].numpy() for grid in (field.sigma(field.density.dense()), solid_density(field, cameras))
    )
    middle = tuple([32] * 3)
    assert hollow[middle] < 1e-6 < 100 < solid[middle]
    outside = (nodes.norm(dim=1) > 0.4).view(64, 64, 64).numpy()
    np.testing.assert_array_equal(solid[outside & (np.arange(64) > 20)], hollow[outside & (np.arange(64) > 20)])
    ball = trimesh.creation.icosphere(subdivisions=4, radius=0.3)
    truth = coloured_as_is(ball.vertices, ball.faces)
    assert volume_iou(coloured_as_is(*extract_surface(solid, 0.6)), truth) > 0.85
    assert volume_iou(coloured_as_is(*extract_surface(hollow, 0.6)), truth) < 0.8


def test_the_surface_of_an_opaque_field_lies_at_its_silhouette_and_of_a_translucent_one_outside():
    """A ray at the distance p from the centre of a ball of radius r and density σ crosses 2 √(r² - p²).

    It is half opaque at p = √(r² - (ln 2 / 2σ)²): a fit of translucent density to a silhouette reaches past it.
    """
    radius, outside = 0.3, []
    for sigma in (3.0, 120.0):
        field = SjcField(replace(PUBLISHED, nodes=49, half_side=0.6), torch.ones(3), True, torch.Generator())
        with torch.no_grad():  # within one spacing, 0.025, of the radius from empty to σ
            raw = (radius - field.density.positions().norm(dim=1)) * 4000
            field.density.raw[1:, 0] = raw.clamp(-30, np.log(np.expm1(sigma)) + 1 if sigma < 20 else sigma + 1)
        opacity = field.render(CAMERA[None], 96, field.occupied_cells()).opacities[0]
        tangent = np.sqrt((opacity > 0.5).sum().item() / np.pi) / 48 * np.tan(np.radians(FOV_DEGREES / 2))
        silhouette = np.linalg.norm(camera_centre(CAMERA)) * np.sin(np.arctan(tangent))
        vertices, _ = extract_surface(field.sigma(field.density.dense()).detach().numpy(), 0.6)
        assert np.linalg.norm(vertices, axis=1).mean() == pytest.approx(radius, abs=0.25 * 0.025)
        outside.append(radius - silhouette)
        assert silhouette == pytest.approx(np.sqrt(radius**2 - (np.log(2) / (2 * sigma)) ** 2), abs=0.02)
    translucent, opaque = outside
    assert opaque < 0.4 * 0.025 < 0.025 < translucent


def test_a_short_fit_lowers_the_loss_and_repeats_itself():
    short, losses = replace(SMALL, steps=20, nodes=20), []
    one = fitted(box(), short, 16, losses=losses)
    two, other = fitted(box(), short, 16), fitted(box(), short, 16, seed=1)
    assert np.mean(losses[-3:]) < 0.5 * np.mean(losses[:3])
    assert torch.equal(one.density.raw, two.density.raw)
    assert not torch.equal(one.density.raw, other.density.raw)


def test_an_interrupted_fit_continues_bit_for_bit(tmp_path):
    settings, state = replace(SMALL, steps=8, nodes=16), tmp_path / "state.npz"
    whole = fitted(box(), settings, 16)

    class Stop(Exception):
        pass

    class Killed(list):
        def append(self, loss):
            super().append(loss)
            if len(self) == 7:
                raise Stop

    with pytest.raises(Stop):
        fitted(box(), settings, 16, losses=Killed(), saved=state, save_steps=5)
    losses = []
    resumed = fitted(box(), settings, 16, losses=losses, saved=state, save_steps=5)
    assert len(losses) == 3
    for name, parameter in whole.named_parameters():
        assert torch.equal(parameter, resumed.get_parameter(name)), name


def test_a_damaged_state_and_one_of_another_grid_are_errors(tmp_path):
    settings, state = replace(SMALL, steps=1, nodes=16), tmp_path / "state.npz"
    fitted(box(), settings, 16, saved=state, save_steps=1)
    with pytest.raises(UserError):
        fitted(box(), replace(settings, nodes=17), 16, saved=state)
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(UserError):
        fitted(box(), settings, 16, saved=state)


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [blob(), box()], ids=["blob", "box"])
def test_scores_of_the_true_views_lead_to_the_shape(mesh):
    assert iou(fitted(mesh, PIXELS, 64), mesh) >= 0.85


def test_the_score_of_the_opacity_goes_from_what_is_rendered_to_the_silhouette():
    rendered, silhouette = torch.tensor([[0.2, 0.9]], requires_grad=True), torch.tensor([[1.0, 0.0]])
    score_loss(rendered, silhouette, 0.5).backward()
    assert torch.allclose(rendered.grad, (rendered.detach() - silhouette) / 0.5)


@pytest.mark.parametrize(
    "values",
    [{"min_height": 2.1}, {"min_height": 0.5, "max_height": 0.6}, {"max_height": -1.9, "min_height": -2.0},
     {"rate": float("nan")}, {"skip_noisiest": 900}, {"emptiness_scale": -1.0}, {"near_weight": -1.0}],
)  # fmt: skip
def test_settings_without_cameras_or_with_invalid_numbers_are_refused(values):
    for settings in (SjcSettings, SjcOptions):
        with pytest.raises(FieldError) as caught:
            settings(**values)
        assert type(caught.value.settings) is settings  # the command finds the option's path by the type


def test_options_that_are_not_given_are_the_published_values_or_those_for_pixels():
    assert SjcOptions().resolved(pixels=False) == PUBLISHED == SjcSettings()
    assert SjcOptions().resolved(pixels=True) == PIXELS
    given = SjcOptions(steps=7, mask_weight=0.0, anneal=False, max_height=1.0)
    assert given.resolved(pixels=True) == replace(PIXELS, steps=7, mask_weight=0.0, anneal=False, max_height=1.0)
    assert given.resolved(pixels=False) == replace(PUBLISHED, steps=7, max_height=1.0)


def test_the_help_of_options_names_the_values_for_latents_and_for_pixels():
    for field in fields(SjcOptions):
        latents, pixels = getattr(PUBLISHED, field.name), getattr(PIXELS, field.name)
        if field.default is not None:
            assert latents == pixels == field.default
        elif field.name != "anneal":
            named = field.metadata["help"].split("null: ")[1].replace(",", "").replace("or", "").split()
            assert [float(word) for word in named if word.lstrip("-").replace(".", "").isdigit()] == [latents, pixels]


def test_the_narrowest_ranges_of_heights_have_cameras():
    for low, high in ((2.0, 2.2), (-2.2, -1.6), (0.0, 0.2)):
        camera = sample_camera(np.random.default_rng(0), SjcSettings(min_height=low, max_height=high))
        assert low < camera_centre(camera)[2] < high
