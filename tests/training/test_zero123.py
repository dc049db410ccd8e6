import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import nn

from tests.training.conftest import random_pairs
from training.model.autoencoder import stable_diffusion_autoencoder
from training.model.zero123 import Zero123, add_noise, noise_schedule


class Watched(nn.Module):
    """Predicts a constant and keeps what it was given."""

    def __init__(self, unet, value):
        super().__init__()
        self.config, self.device, self.value = unet.config, unet.device, value

    def forward(self, joined, timesteps, encoder_hidden_states):
        self.joined, self.timesteps, self.context = joined, timesteps, encoder_hidden_states
        noise = torch.full_like(joined[:, : joined.shape[1] // 2], self.value)
        return type("Out", (), {"sample": noise})


def test_schedule_is_stable_diffusions():
    alphas = noise_schedule().alphas_cumprod
    assert len(alphas) == 1000
    assert alphas[0].item() == pytest.approx(1 - 0.00085, rel=1e-6)
    assert alphas[999].item() == pytest.approx(0.0046600, rel=1e-4)  # the known end of SD v1's schedule
    # β rises along a line in its square root.
    betas = 1 - alphas[1:] / alphas[:-1]
    assert betas[-1].item() == pytest.approx(0.012, rel=1e-3)
    steps = betas.sqrt().diff()
    assert torch.allclose(steps, steps.mean().expand_as(steps), rtol=0.05)


def test_noise_is_added_as_diffusers_adds_it():
    g = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, 4, 3, 8, 8, generator=g)
    t = torch.tensor([0, 10, 500, 999])
    schedule = noise_schedule()
    expected = DDPMScheduler.from_config(schedule.config).add_noise(x, noise, t)
    assert torch.allclose(add_noise(x, noise, schedule.alphas_cumprod[t]), expected, atol=1e-6)


def test_the_unet_sees_noisy_first_then_condition(model, batch):
    model.unet = Watched(model.unet, 0.0)
    noisy, condition = torch.zeros(3, 12, 8, 8), torch.ones(3, 12, 8, 8)
    model.predict_noise(noisy, torch.tensor([1, 2, 3]), torch.zeros(3, 1, 16), condition)
    assert torch.equal(model.unet.joined[:, :12], noisy) and torch.equal(model.unet.joined[:, 12:], condition)


def test_condition_is_the_unscaled_mode_and_target_the_scaled_sample(model):
    torch.manual_seed(0)
    model.vae = stable_diffusion_autoencoder().eval()
    pictures = random_pairs(1, 32)["condition"]
    posterior = model.vae.encode(pictures).latent_dist
    assert torch.allclose(model.condition_latent(pictures), posterior.mean, atol=1e-6)
    sample = posterior.sample(torch.Generator().manual_seed(3)) * 0.18215
    assert torch.allclose(model.target_latent(pictures, torch.Generator().manual_seed(3)), sample, atol=1e-6)
    other = model.target_latent(pictures, torch.Generator().manual_seed(4))
    assert not torch.allclose(other, sample)


def test_loss_of_a_constant_prediction_is_worked_out_by_hand(model, batch):
    model.unet = Watched(model.unet, 0.5)
    loss = model.loss(batch, torch.Generator().manual_seed(11))
    # The generator is asked for the latent's sample, u, the timesteps and the noise, in this order.
    g = torch.Generator().manual_seed(11)
    torch.randn(3, 12, 8, 8, generator=g)
    u = torch.rand(3, generator=g)
    t = torch.randint(1000, (3,), generator=g)
    noise = torch.randn(3, 12, 8, 8, generator=g)
    assert loss.item() == pytest.approx((noise - 0.5).square().mean().item(), rel=1e-6)
    assert torch.equal(model.unet.timesteps, t)
    assert (u > 0.15).all(), "this seed drops nothing, so the condition shows"
    latent = nn.functional.pixel_unshuffle(batch["condition"], 2)
    assert torch.equal(model.unet.joined[:, 12:], latent)


def test_drop_out_reaches_the_unet(model, batch):
    model.unet = Watched(model.unet, 0.0)
    nn.init.ones_(model.cc_projection.projection.bias)
    model.loss(batch, torch.Generator().manual_seed(0), drop=0.5)  # u < 1 drops every embedding
    assert torch.equal(model.unet.context, torch.ones(3, 1, 16))  # zeroed *before* the projection: its bias stays
    u = torch.rand(3, generator=after_latent_sample(0))
    assert [bool(c.any()) for c in model.unet.joined[:, 12:]] == [bool(v < 0.5) for v in u]


def after_latent_sample(seed):
    g = torch.Generator().manual_seed(seed)
    torch.randn(3, 12, 8, 8, generator=g)
    return g


def test_loss_is_a_function_of_its_generator(model, batch):
    first, again, other = (model.loss(batch, torch.Generator().manual_seed(s)).item() for s in (1, 1, 2))
    assert first == again != other


def test_only_unet_and_projection_learn(model: Zero123, batch):
    model.train()
    model.loss(batch, torch.Generator().manual_seed(0)).backward()
    assert all(p.grad is None for part in (model.vae, model.image_encoder) for p in part.parameters())
    assert all(p.grad is not None for p in model.unet.parameters())
    assert model.cc_projection.projection.weight.grad is not None
    assert not model.vae.training and not model.image_encoder.training and model.unet.training


def test_pose_changes_the_prediction_once_the_projection_has_learnt(model):
    embedding = torch.zeros(1, 16)
    pose = torch.tensor([[0.3, 0.5, 0.8, 0.1]])
    assert torch.equal(model.context(embedding, pose), model.context(embedding, pose * 0))
    nn.init.ones_(model.cc_projection.projection.weight)
    assert model.context(embedding, pose).flatten().tolist() == pytest.approx([1.7] * 16)


def test_resolution_follows_from_the_parts(model):
    assert (model.resolution, model.latent_size, model.latent_channels) == (16, 8, 12)
