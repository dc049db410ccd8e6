from dataclasses import replace

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.utils.torch_utils import randn_tensor
from torch import nn

from conf.options import FieldError
from inference.samplers import noise_schedule as sampler_schedule
from tests.support.small_model import SMALL
from training.model.architecture import build
from training.model.checkpoints import checkpoint
from training.model.ddim import ddim, ddim_timesteps, novel_views, starting_noise
from training.model.guidance import guided
from training.model.zero123 import Prediction, noise_schedule


def denoiser(x, t):
    """Return an arbitrary function of image and timestep."""
    return torch.tanh(x + t.view(-1, 1, 1, 1) / 1000)


def test_timesteps_are_those_of_the_original():
    assert ddim_timesteps(50).tolist() == list(range(1, 1000, 20))
    assert len(ddim_timesteps(75)) == 77  # 1000 // 75 = 13, and 13 goes 77 times
    # Where the original passes the last timestep and fails, the number of steps is the requested one.
    assert ddim_timesteps(3).tolist() == [1, 334, 667]
    for steps in (0, 1001):
        with pytest.raises(ValueError, match="DDIM takes 1 to 1000"):
            ddim_timesteps(steps)


def reference(predict_noise, x_T, timesteps, alphas_cumprod, eta, generator, clip, last_alpha):
    """Equation 12 of the paper, in the order of the original's code; `last_alpha` is ᾱ after the last step."""
    x, alphas = x_T, alphas_cumprod[timesteps]
    previous = torch.cat([last_alpha[None], alphas[:-1]])
    for t, alpha, alpha_prev in zip(timesteps.flip(0).tolist(), alphas.flip(0), previous.flip(0), strict=True):
        noise = predict_noise(x, torch.full((len(x),), t))
        clean = (x - (1 - alpha).sqrt() * noise) / alpha.sqrt()
        if clip is not None:
            clean = clean.clamp(-clip, clip)
            noise = (x - alpha.sqrt() * clean) / (1 - alpha).sqrt()
        sigma = eta * ((1 - alpha_prev) / (1 - alpha) * (1 - alpha / alpha_prev)).sqrt()
        x = alpha_prev.sqrt() * clean + (1 - alpha_prev - sigma**2).sqrt() * noise
        if eta > 0:
            x = x + sigma * randn_tensor(x.shape, generator=generator)
    return x


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("prediction", [Prediction.epsilon, Prediction.sample])
@pytest.mark.parametrize("steps", [1, 20, 75, 600])
def test_ddim_steps_equal_the_equation_bit_for_bit(steps, prediction, clip, eta):
    schedule = noise_schedule(prediction, clip)
    alphas, last, timesteps = schedule.alphas_cumprod, schedule.final_alpha_cumprod, ddim_timesteps(steps)
    x_T = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = reference(denoiser, x_T, timesteps, alphas, eta, torch.Generator().manual_seed(1), clip, last)
    assert torch.equal(ddim(denoiser, x_T, timesteps, schedule, eta, torch.Generator().manual_seed(1)), expected)


def test_a_perfect_denoiser_restores_the_image():
    schedule, exact = noise_schedule(), noise_schedule(clip=1.0)  # the latter ends at ᾱ = 1
    image = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1

    def perfect(x, t):
        alpha = schedule.alphas_cumprod[t].view(-1, 1, 1, 1)
        return (x - alpha.sqrt() * image) / (1 - alpha).sqrt()

    x_T = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    end = ddim(perfect, x_T, ddim_timesteps(10), schedule, 1.0, torch.Generator().manual_seed(2))
    # As in the original it ends at ᾱ of timestep 0, whose noise has a deviation of √0.00085 = 0.029.
    assert 0.02 < (end - image).std() < 0.04
    clean = ddim(perfect, x_T, ddim_timesteps(10), exact, 1.0, torch.Generator().manual_seed(2))
    assert torch.allclose(clean, image, atol=1e-5)


def test_colours_beyond_white_do_not_darken_the_steps():
    """Guidance extrapolates white to 1.5; the latents of all steps keep the mean √ᾱ of white, as in training."""
    schedule, timesteps = noise_schedule(Prediction.sample, clip=1.0), ddim_timesteps(10)
    means = {}

    def guided_white(x, t):
        alpha = schedule.alphas_cumprod[t[0]]
        means[int(t[0])] = float(x.mean() / alpha.sqrt())
        return (x - alpha.sqrt() * 1.5) / (1 - alpha).sqrt()

    start = schedule.alphas_cumprod[timesteps[-1]]
    noise = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for eta in (0.0, 1.0):
        x_T = start.sqrt() + (1 - start).sqrt() * noise
        ddim(guided_white, x_T, timesteps, schedule, eta, torch.Generator().manual_seed(1))
        assert all(mean == pytest.approx(1, abs=0.15) for mean in means.values())


def test_sampling_starts_from_the_mean_colour_of_the_condition(model):
    """The denoiser knows that every picture has one colour, and reads it from the mean, as an optimal one does."""
    schedule, timesteps = noise_schedule(Prediction.sample, clip=1.0), ddim_timesteps(20)

    def one_colour(x, t):
        alpha = schedule.alphas_cumprod[t[0]]
        clean = (x.mean(dim=(1, 2, 3), keepdim=True) / alpha.sqrt()).clamp(-1, 1)
        return (x - alpha.sqrt() * clean) / (1 - alpha).sqrt()

    colours = torch.tensor([-0.8, 0.0, 0.8])
    noise = torch.randn(3, 12, 64, 64, generator=torch.Generator().manual_seed(0))
    condition = colours[:, None, None, None].expand_as(noise)
    x_T = starting_noise(model, noise, condition, int(timesteps[-1]))
    drawn = ddim(one_colour, x_T, timesteps, schedule, 0.0).mean(dim=(1, 2, 3))
    assert torch.allclose(drawn, colours, atol=0.15)
    assert ddim(one_colour, noise, timesteps, schedule, 0.0).mean(dim=(1, 2, 3)).abs().max() < 0.15

    alpha = float(model.alphas_cumprod[999])
    offset = (starting_noise(model, noise, condition, 999) - noise)[2]
    assert torch.allclose(offset, torch.tensor(0.8 * (alpha / (1 - alpha)) ** 0.5), atol=1e-5)


def test_a_schedule_with_a_larger_end_leaves_less_of_the_picture(tmp_path):
    """√ᾱ of the last timestep, from the product of 1 - β; a checkpoint keeps it, and every sampler takes it."""
    for beta_end, remainder in ((0.012, 0.0683), (0.03, 0.0024)):
        betas = torch.linspace(0.00085**0.5, beta_end**0.5, 1000, dtype=torch.float64) ** 2
        assert float((1 - betas).prod().sqrt()) == pytest.approx(remainder, rel=0.02)
        built = build(replace(SMALL, beta_end=beta_end))
        checkpoint.save(built, tmp_path / str(beta_end))
        for model in (built, checkpoint.load(tmp_path / str(beta_end))):
            assert float(model.alphas_cumprod[-1].sqrt()) == pytest.approx(remainder, rel=0.02)
            assert sampler_schedule(model.scheduler)["trained_betas"] == pytest.approx(betas.tolist(), rel=1e-4)
    for beta_end in (0.0001, 1.0):
        with pytest.raises(FieldError, match="beta_end"):
            build(replace(SMALL, beta_end=beta_end))


def test_latents_of_an_autoencoder_start_from_the_noise_of_the_original(model):
    model.vae = AutoencoderKL()
    noise = torch.randn(1, 4, 8, 8)
    assert starting_noise(model, noise, torch.ones_like(noise), 981) is noise


def test_guidance_adds_the_scaled_difference_to_the_unconditional_prediction(model):
    noisy, condition = torch.randn(2, 2, 12, 8, 8, generator=torch.Generator().manual_seed(0))
    t, context = torch.tensor([5, 700]), torch.randn(2, 1, 16, generator=torch.Generator().manual_seed(1))
    nn.init.ones_(model.cc_projection.projection.bias)  # so that zeros before and after the projection differ
    with torch.no_grad():
        given = model.predict_noise(noisy, t, context, condition)
        null = model.predict_noise(noisy, t, torch.zeros_like(context), torch.zeros_like(condition))
        assert torch.allclose(guided(model, context, condition, 3.0)(noisy, t), null + 3 * (given - null), atol=1e-5)
        assert torch.allclose(guided(model, context, condition, 1.0)(noisy, t), given, atol=1e-6)
        assert torch.allclose(guided(model, context, condition, 0.0)(noisy, t), null, atol=1e-5)


def test_novel_views_are_in_range_and_repeat_with_the_seed(model, batch):
    def views(seed):
        g = torch.Generator().manual_seed(seed)
        given = model.condition_latent(batch["condition"]), model.embed(batch["condition"])
        return novel_views(model, *given, batch["pose"], steps=3, generator=g)

    assert views(0).shape == (3, 3, 16, 16)
    assert views(0).abs().max() <= 1
    assert torch.equal(views(0), views(0)) and not torch.equal(views(0), views(1))
