import torch

from training.model.autoencoder import PatchAutoencoder, stable_diffusion_autoencoder


def pictures(side=8):
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_patch_autoencoder_is_lossless_and_deterministic():
    x = pictures()
    for patch in (1, 2, 4):
        vae = PatchAutoencoder(patch)
        posterior = vae.encode(x).latent_dist
        assert posterior.mode().shape == (2, 3 * patch**2, 8 // patch, 8 // patch)
        assert torch.equal(posterior.sample(), posterior.mode())
        assert torch.equal(vae.decode(posterior.mode()).sample, x)


def test_patch_of_one_pixel_is_the_identity():
    assert torch.equal(PatchAutoencoder(1).encode(pictures()).latent_dist.mode(), pictures())


def test_stored_moments_have_zero_variance():
    # A latent shard holds mean and log-variance; samples of them must equal the image.
    mean, log_variance = PatchAutoencoder(2).encode(pictures()).latent_dist.parameters.chunk(2, dim=1)
    noisy = mean + (log_variance / 2).exp() * torch.ones_like(mean)
    assert torch.allclose(noisy, mean, atol=1e-6)


def test_stable_diffusion_autoencoder_has_the_known_size():
    with torch.device("meta"):
        vae = stable_diffusion_autoencoder()
        assert sum(p.numel() for p in vae.parameters()) == 83_653_863
        assert vae.encode(torch.zeros(1, 3, 256, 256)).latent_dist.mode().shape == (1, 4, 32, 32)
    assert vae.config["scaling_factor"] == 0.18215
