import pytest
import torch
from torch import nn

from training.model.ddim import ddim, ddim_timesteps, novel_views
from training.model.guidance import guided
from training.model.zero123 import noise_schedule


def denoiser(x, t):
    """Some function of picture and time, the same for both samplers."""
    return torch.tanh(x + t.view(-1, 1, 1, 1) / 1000)


def test_timesteps_are_the_originals():
    assert ddim_timesteps(50).tolist() == list(range(1, 1000, 20))
    assert len(ddim_timesteps(75)) == 77  # 1000 // 75 = 13, and 13 goes 77 times
    # Where the original runs past the last timestep and fails, the count comes out as asked.
    assert ddim_timesteps(3).tolist() == [1, 334, 667]
    for steps in (0, 1001):
        with pytest.raises(ValueError, match="DDIM takes 1 to 1000"):
            ddim_timesteps(steps)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_agrees_with_diffusers(eta, clip):
    schedule = noise_schedule(clip=clip)
    x_T = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    g, last = torch.Generator().manual_seed(1), schedule.final_alpha_cumprod
    ours = ddim(denoiser, x_T, ddim_timesteps(20), schedule.alphas_cumprod, eta, g, clip, last)
    schedule.set_timesteps(20)
    theirs, g = x_T, torch.Generator().manual_seed(1)
    for t in schedule.timesteps:
        theirs = schedule.step(denoiser(theirs, t.expand(2)), int(t), theirs, eta=eta, generator=g).prev_sample
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_a_perfect_denoiser_brings_the_picture_back():
    alphas = noise_schedule().alphas_cumprod
    picture = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1

    def knows(x, t):
        alpha = alphas[t].view(-1, 1, 1, 1)
        return (x - alpha.sqrt() * picture) / (1 - alpha).sqrt()

    x_T = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    end = ddim(knows, x_T, ddim_timesteps(10), alphas, 1.0, torch.Generator().manual_seed(2))
    # As in the original it ends at ᾱ of timestep 0, whose noise has a deviation of √0.00085 = 0.029 …
    assert 0.02 < (end - picture).std() < 0.04
    clean = ddim(knows, x_T, ddim_timesteps(10), alphas, 1.0, torch.Generator().manual_seed(2), None, torch.ones(()))
    assert torch.allclose(clean, picture, atol=1e-5)  # … and on request without any


def test_guidance_is_null_plus_scale_times_the_difference(model):
    noisy, condition = torch.randn(2, 2, 12, 8, 8, generator=torch.Generator().manual_seed(0))
    t, context = torch.tensor([5, 700]), torch.randn(2, 1, 16, generator=torch.Generator().manual_seed(1))
    nn.init.ones_(model.cc_projection.projection.bias)  # so that zeros before and after the projection differ
    with torch.no_grad():
        given = model.predict_noise(noisy, t, context, condition)
        null = model.predict_noise(noisy, t, torch.zeros_like(context), torch.zeros_like(condition))
        assert torch.allclose(guided(model, context, condition, 3.0)(noisy, t), null + 3 * (given - null), atol=1e-5)
        assert torch.allclose(guided(model, context, condition, 1.0)(noisy, t), given, atol=1e-6)
        assert torch.allclose(guided(model, context, condition, 0.0)(noisy, t), null, atol=1e-5)


def test_novel_views_are_pictures_and_repeat_with_their_seed(model, batch):
    def views(seed):
        g = torch.Generator().manual_seed(seed)
        given = model.condition_latent(batch["condition"]), model.embed(batch["condition"])
        return novel_views(model, *given, batch["pose"], steps=3, generator=g)

    assert views(0).shape == (3, 3, 16, 16)
    assert views(0).abs().max() <= 1
    assert torch.equal(views(0), views(0)) and not torch.equal(views(0), views(1))
