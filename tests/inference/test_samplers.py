"""Solvers on problems whose answers are known, and guidance by hand."""

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler

from inference.config import Sampler, Sampling
from inference.novel_view import denoiser
from inference.samplers import EQUAL_LOG_SNR_STEPS, clipped, noise_schedule, sample, solve
from training.model.ddim import ddim, ddim_timesteps
from training.model.guidance import guided
from training.model.zero123 import noise_schedule as training_schedule

ALPHAS = training_schedule().alphas_cumprod
SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "timestep_spacing": "trailing",
}


def noise(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=[Sampler.dpm_solver, Sampler.euler])
def solver(request):
    if request.param is Sampler.euler:
        return EulerDiscreteScheduler(**SCHEDULE)
    return DPMSolverMultistepScheduler(**SCHEDULE, **EQUAL_LOG_SNR_STEPS)


def test_a_perfect_denoiser_restores_the_image(solver):
    picture = noise(0, 1, 3, 4, 4).clamp(-1, 1)

    def perfect(x, t):
        alpha = ALPHAS[t].view(-1, 1, 1, 1)
        return (x - alpha.sqrt() * picture) / (1 - alpha).sqrt()

    ticks = []
    end = solve(perfect, noise(1, 1, 3, 4, 4), solver, 7, lambda: ticks.append(0))
    assert torch.allclose(end, picture, atol=2e-3) and len(ticks) == 7


@pytest.mark.parametrize(
    "settings", [{}, {"beta_end": 0.02}, {"beta_schedule": "linear"}, {"num_train_timesteps": 500}]
)
def test_the_schedule_of_the_solvers_is_that_of_the_checkpoint_to_the_bit(settings):
    checkpoint = DDIMScheduler.from_config(training_schedule().config, **settings)
    for kind, options in ((DPMSolverMultistepScheduler, EQUAL_LOG_SNR_STEPS), (EulerDiscreteScheduler, {})):
        ours, theirs = (kind(**given, **options) for given in (noise_schedule(checkpoint), SCHEDULE | settings))
        assert torch.equal(ours.alphas_cumprod, theirs.alphas_cumprod)
        for one in (ours, theirs):
            one.set_timesteps(20)
        assert torch.equal(ours.timesteps, theirs.timesteps) and torch.equal(ours.sigmas, theirs.sigmas)


@pytest.mark.parametrize("solver_kind", [DPMSolverMultistepScheduler, EulerDiscreteScheduler])
def test_a_schedule_without_signal_at_its_end_leads_to_the_image(solver_kind):
    checkpoint = DDIMScheduler.from_config(training_schedule().config, rescale_betas_zero_snr=True)
    alphas, picture = checkpoint.alphas_cumprod, torch.full((1, 3, 4, 4), 0.8)
    assert alphas[-1] == 0

    def perfect(x, t):
        alpha = alphas[t].view(-1, 1, 1, 1)
        return (x - alpha.sqrt() * picture) / (1 - alpha).sqrt()

    end = solve(perfect, noise(1, 1, 3, 4, 4), solver_kind(**noise_schedule(checkpoint)), 20, lambda: None)
    assert torch.allclose(end, picture, atol=2e-3)


def test_a_gaussian_is_transported_as_in_closed_form(solver):
    """For data of deviation s the flow is linear: it ends at x_T · s / √(ᾱ_T s² + 1 - ᾱ_T)."""
    s, x_T = 0.5, noise(1, 1, 3, 4, 4)

    def gaussian(x, t):
        alpha = ALPHAS[t].view(-1, 1, 1, 1)
        return (1 - alpha).sqrt() * x / (alpha * s**2 + 1 - alpha)

    exact = x_T * s / (ALPHAS[-1] * s**2 + 1 - ALPHAS[-1]).sqrt()
    coarse, fine = (
        ((solve(gaussian, x_T, solver, n, lambda: None) - exact).norm() / exact.norm()).item() for n in (20, 80)
    )
    assert coarse < (0.01 if isinstance(solver, DPMSolverMultistepScheduler) else 0.15)
    assert fine < coarse / 2
    assert (ddim(gaussian, x_T, ddim_timesteps(100), training_schedule(), eta=0.0) - exact).norm() < 0.05 * exact.norm()


def test_clipping_bounds_the_clean_prediction():
    def zero_noise(x, t):
        return torch.zeros_like(x)  # predicts that all of x is signal

    x, t = noise(2, 2, 3, 4, 4) * 3, torch.tensor([10, 900])
    alpha = ALPHAS[t].view(-1, 1, 1, 1)
    predicted = clipped(zero_noise, ALPHAS, 1.0)(x, t)
    clean = (x - (1 - alpha).sqrt() * predicted) / alpha.sqrt()
    assert torch.allclose(clean, (x / alpha.sqrt()).clamp(-1, 1), atol=1e-4)


@pytest.mark.parametrize("sampler", list(Sampler))
def test_every_sample_has_its_own_seed(novel_view, sampler):
    model, sampling = novel_view.model, Sampling(steps=4, sampler=sampler)

    def draw(*seeds):
        condition = torch.zeros(len(seeds), model.latent_channels, model.latent_size, model.latent_size)
        return sample(model, lambda x, t: 0.1 * x, condition, seeds, sampling, lambda: None)

    both = draw(5, 6)
    assert torch.allclose(both[:1], draw(5), atol=1e-6) and torch.allclose(both[1:], draw(6), atol=1e-6)
    assert not torch.allclose(both[0], both[1], atol=0.1)


class Table:
    """A model whose prediction encodes its conditioning: 1 for the context token, 10 for the latent."""

    def predict_noise(self, noisy, timesteps, context, condition):
        return noisy * 0 + context.mean(dim=(1, 2))[:, None, None, None] + 10 * condition


def test_two_guidance_scales_as_in_instruct_pix2pix():
    x, t = torch.zeros(1, 1, 2, 2), torch.tensor([3])
    context, condition = torch.ones(1, 1, 4), torch.ones(1, 1, 2, 2)

    def guided_value(*scales, **options):
        return guided(Table(), context, condition, *scales, **options)(x, t).unique().item()

    # ε(∅, ∅) = 0, ε(I, ∅) = 10, ε(I, P) = 11
    assert guided_value(3.0) == 0 + 3 * 11
    assert guided_value(3.0, 2.0) == 0 + 2 * 10 + 3 * (11 - 10)
    assert guided_value(1.0, 2.0) == 0 + 2 * 10 + 1
    assert guided_value(1.0) == 11 and guided_value(2.0, 2.0) == 22
    # A null token of 5: ε(∅, ∅) = 5, ε(I, ∅) = 15
    assert guided_value(3.0, null_context=context * 5) == 5 + 3 * (11 - 5)
    assert guided_value(3.0, 2.0, null_context=context * 5) == 5 + 2 * (15 - 5) + 3 * (11 - 15)


def test_trained_unconditional_context_is_the_pose_with_a_zero_embedding(novel_view):
    model = novel_view.model
    condition, embedding, poses = noise(3, 2, 12, 8, 8), noise(4, 2, 16), noise(5, 2, 4)
    x, t = noise(6, 2, 12, 8, 8), torch.tensor([5, 700])
    with torch.no_grad():
        null = model.predict_noise(x, t, model.context(torch.zeros(2, 16), poses), torch.zeros_like(condition))
        given = model.predict_noise(x, t, model.context(embedding, poses), condition)
        trained = denoiser(model, condition, embedding, poses, Sampling(unconditional="trained", guidance=3.0))(x, t)
        after = denoiser(model, condition, embedding, poses, Sampling(guidance=3.0))(x, t)
    assert torch.allclose(trained, null + 3 * (given - null), atol=1e-5)
    assert not torch.allclose(trained, after, atol=1e-3)
