import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import nn

from tests.support.small_model import mean_loss, random_pairs
from training.model.autoencoder import stable_diffusion_autoencoder
from training.model.zero123 import Prediction, Zero123, noise_schedule


class Watched(nn.Module):
    """Returns a given prediction and keeps its inputs."""

    def __init__(self, unet, value):
        super().__init__()
        self.config, self.device, self.dtype, self.value = unet.config, unet.device, unet.dtype, value

    def forward(self, joined, timesteps, encoder_hidden_states):
        self.joined, self.timesteps, self.context = joined, timesteps, encoder_hidden_states
        output = self.value + torch.zeros_like(joined[:, : joined.shape[1] // 2])
        return type("Out", (), {"sample": output})


def test_schedule_is_that_of_stable_diffusion():
    alphas = noise_schedule().alphas_cumprod
    assert len(alphas) == 1000
    assert alphas[0].item() == pytest.approx(1 - 0.00085, rel=1e-6)
    assert alphas[999].item() == pytest.approx(0.0046600, rel=1e-4)  # the known end of SD v1's schedule
    # β rises along a line in its square root.
    betas = 1 - alphas[1:] / alphas[:-1]
    assert betas[-1].item() == pytest.approx(0.012, rel=1e-3)
    steps = betas.sqrt().diff()
    assert torch.allclose(steps, steps.mean().expand_as(steps), rtol=0.05)


@pytest.mark.parametrize("kind", list(Prediction))
def test_a_perfect_unet_has_zero_loss_for_every_prediction_type(model, batch, kind):
    """The perfect output is computed by diffusers; loss 0 and ε follow for every prediction type."""
    schedule = noise_schedule(kind)
    model = Zero123(model.unet, model.vae, model.image_encoder, model.cc_projection, schedule)
    clean = model.target_latent(batch["target"])
    g = torch.Generator().manual_seed(4)
    _, t = torch.rand(3, generator=g), torch.randint(1000, (3,), generator=g)
    noise = torch.randn(3, 12, 8, 8, generator=g)
    ddpm = DDPMScheduler.from_config(schedule.config)
    right = {"epsilon": noise, "sample": clean, "v_prediction": ddpm.get_velocity(clean, noise, t)}[kind]
    model.unet = Watched(model.unet, right)
    given = model.condition_latent(batch["condition"]), model.embed(batch["condition"])
    loss = model.latent_losses(clean, *given, batch["pose"], torch.Generator().manual_seed(4))[0].mean()
    assert loss.item() == pytest.approx(0, abs=1e-8)
    noisy = ddpm.add_noise(clean, noise, t)
    assert torch.allclose(model.unet.joined[:, :12], noisy, atol=1e-5)
    assert torch.allclose(model.predict_noise(noisy, t, given[1], given[0]), noise, atol=1e-3)


def test_sample_prediction_has_the_bounded_weight_of_v_prediction(model, batch):
    model = Zero123(model.unet, model.vae, model.image_encoder, model.cc_projection, noise_schedule(Prediction.sample))
    clean = model.target_latent(batch["target"])
    model.unet = Watched(model.unet, clean + 0.1)
    given = model.condition_latent(batch["condition"]), model.embed(batch["condition"])
    loss = model.latent_losses(clean, *given, batch["pose"], torch.Generator().manual_seed(4))[0].mean()
    g = torch.Generator().manual_seed(4)
    _, t = torch.rand(3, generator=g), torch.randint(1000, (3,), generator=g)
    weights = [min(5.0, 1 / (1 - noise_schedule().alphas_cumprod[i].item())) for i in t]
    assert loss.item() == pytest.approx(0.01 * sum(weights) / 3, rel=1e-4)


def test_unet_input_is_noisy_target_then_condition(model, batch):
    model.unet = Watched(model.unet, 0.0)
    noisy, condition = torch.zeros(3, 12, 8, 8), torch.ones(3, 12, 8, 8)
    model.predict_noise(noisy, torch.tensor([1, 2, 3]), torch.zeros(3, 1, 16), condition)
    assert torch.equal(model.unet.joined[:, :12], noisy) and torch.equal(model.unet.joined[:, 12:], condition)


def test_condition_is_the_mode_and_target_the_scaled_sample(model):
    torch.manual_seed(0)
    model.vae = stable_diffusion_autoencoder().eval()
    pictures = random_pairs(1, 32)["condition"]
    posterior = model.vae.encode(pictures).latent_dist
    assert torch.allclose(model.condition_latent(pictures), posterior.mean, atol=1e-6)
    sample = posterior.sample(torch.Generator().manual_seed(3)) * 0.18215
    assert torch.allclose(model.target_latent(pictures, torch.Generator().manual_seed(3)), sample, atol=1e-6)
    other = model.target_latent(pictures, torch.Generator().manual_seed(4))
    assert not torch.allclose(other, sample)


def test_loss_of_a_constant_prediction_matches_a_hand_computed_value(model, batch):
    model.unet = Watched(model.unet, 0.5)
    loss = mean_loss(model, batch, torch.Generator().manual_seed(11))
    # The generator draws the latent's sample, u, the timesteps and the noise, in this order.
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


def test_dropped_conditioning_is_passed_to_the_unet(model, batch):
    model.unet = Watched(model.unet, 0.0)
    nn.init.ones_(model.cc_projection.projection.bias)
    mean_loss(model, batch, torch.Generator().manual_seed(0), drop=0.5)  # u < 1 drops every embedding
    assert torch.equal(model.unet.context, torch.ones(3, 1, 16))  # zeroed *before* the projection: its bias stays
    u = torch.rand(3, generator=after_latent_sample(0))
    assert [bool(c.any()) for c in model.unet.joined[:, 12:]] == [bool(v < 0.5) for v in u]


def after_latent_sample(seed):
    g = torch.Generator().manual_seed(seed)
    torch.randn(3, 12, 8, 8, generator=g)
    return g


def test_loss_is_a_function_of_its_generator(model, batch):
    first, again, other = (mean_loss(model, batch, torch.Generator().manual_seed(s)).item() for s in (1, 1, 2))
    assert first == again != other


def test_only_unet_and_projection_are_trained(model: Zero123, batch):
    model.train()
    mean_loss(model, batch, torch.Generator().manual_seed(0)).backward()
    assert all(p.grad is None for part in (model.vae, model.image_encoder) for p in part.parameters())
    assert all((p.grad is not None) == p.requires_grad for p in model.unet.parameters())
    assert model.unet.conv_in.weight.grad is not None
    assert model.cc_projection.projection.weight.grad is not None
    assert not model.vae.training and not model.image_encoder.training and model.unet.training


def test_pose_changes_the_prediction_after_training(model):
    embedding = torch.zeros(1, 16)
    pose = torch.tensor([[0.3, 0.5, 0.8, 0.1]])
    assert torch.equal(model.context(embedding, pose), model.context(embedding, pose * 0))
    nn.init.ones_(model.cc_projection.projection.weight)
    assert model.context(embedding, pose).flatten().tolist() == pytest.approx([1.7] * 16)


def test_resolution_follows_from_unet_and_autoencoder(model):
    assert (model.resolution, model.latent_size, model.latent_channels) == (16, 8, 12)
