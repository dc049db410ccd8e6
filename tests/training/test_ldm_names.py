"""Conversion and arithmetic against the original's own code (cvlab-columbia/zero123, with openai/CLIP).

`original.npz` holds results of its LatentDiffusion at reduced width on a CPU, with the weights of
`tests.support.originals`; `tests.support.make_original_golden` writes it anew. `names` is the sha256 of the lines
"name [shape]" of the weights, sorted.
"""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.originals import noise, original_state, reduced, write_original
from tests.support.small_model import mean_loss
from training.model.checkpoints.ldm_export import original_tensors
from training.model.checkpoints.pretrained import complete, read
from training.model.conditioning import clip_input
from training.model.ddim import ddim, ddim_timesteps
from training.model.guidance import guided
from training.model.zero123 import Zero123

GOLDEN = np.load(Path(__file__).with_name("original.npz"))
PICTURES, POSE, NOISY = torch.tanh(noise("pictures", 2, 3, 64, 64)), noise("pose", 2, 4), noise("noisy", 2, 4, 8, 8)
TIMESTEPS = torch.tensor([7, 801])


@pytest.fixture(scope="module")
def checkpoint_file(tmp_path_factory) -> Path:
    return write_original(tmp_path_factory.mktemp("original") / "105000.ckpt", original_state())


@pytest.fixture(scope="module")
def converted(checkpoint_file) -> Zero123:
    return complete(read(checkpoint_file), checkpoint_file).requires_grad_(False)


def assert_as_original(name: str, ours: torch.Tensor) -> None:
    expected = torch.from_numpy(GOLDEN[name])
    assert ours.shape == expected.shape
    assert (ours - expected).norm() < 1e-4 * expected.norm(), name


def test_names_and_shapes_are_those_of_the_original():
    tensors = original_tensors(reduced())
    del tensors["model_ema.decay"], tensors["model_ema.num_updates"]
    lines = sorted(f"{name} {[*tensor.shape]}" for name, tensor in tensors.items())
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == str(GOLDEN["names"])


def test_image_embedding_and_projection_equal_the_original(converted):
    assert_as_original("clip_input", clip_input(PICTURES, 224)[:, :, ::37, ::37])
    embedding = converted.embed(PICTURES)
    assert_as_original("embedding", embedding[:, ::5])
    assert_as_original("context", converted.context(embedding, POSE)[:, 0, ::5])


def test_autoencoder_equals_the_original(converted):
    moments = converted.vae.encode(PICTURES).latent_dist.parameters
    assert_as_original("moments", moments[..., ::2, ::2])
    assert torch.equal(converted.condition_latent(PICTURES), moments[:, :4])
    decoded = converted.vae.decode(NOISY / 0.18215).sample
    assert_as_original("decoded", decoded[:, :, ::7, ::7][..., ::2, ::2])


def test_noise_predictions_equal_the_original(converted, checkpoint_file):
    context, condition = given(converted)
    assert_as_original("noise", converted.predict_noise(NOISY, TIMESTEPS, context, condition)[..., ::2, ::2])
    last = complete(read(checkpoint_file, ema=False), checkpoint_file).requires_grad_(False)
    assert_as_original("noise_last", last.predict_noise(NOISY, TIMESTEPS, context, condition)[..., ::2, ::2])


def test_guided_ddim_equals_the_original(converted):
    # The original skips the noisiest timestep: it takes three steps of four.
    denoise, timesteps = guided(converted, *given(converted), scale=3.0), ddim_timesteps(4)[:-1]
    latent = ddim(denoise, NOISY, timesteps, converted.scheduler, eta=0.0)
    assert_as_original("ddim_0", latent[..., ::2, ::2])


def test_training_loss_equals_the_original(checkpoint_file, monkeypatch):
    """Its `shared_step` with the random numbers below: all three kinds of drop-out and none, four timesteps. The last
    layer is scaled up, or the loss would be that of predicting nothing, whatever the condition."""
    model = complete(read(checkpoint_file, ema=False), checkpoint_file).requires_grad_(False)
    model.unet.conv_out.weight.mul_(20)
    batch = {
        "target": torch.tanh(noise("four", 4, 3, 64, 64)),
        "condition": torch.tanh(noise("four_condition", 4, 3, 64, 64)),
        "pose": noise("four_pose", 4, 4),
    }
    noises = iter([noise("latent", 4, 4, 8, 8), noise("noise", 4, 4, 8, 8)])
    monkeypatch.setattr(torch, "randn", lambda *_, **__: next(noises))
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.tensor([0.5, 0.02, 0.07, 0.12]))
    monkeypatch.setattr(torch, "randint", lambda *_, **__: torch.tensor([7, 300, 801, 999]))
    assert mean_loss(model, batch).item() == pytest.approx(GOLDEN["loss"].item(), rel=1e-4)


def given(model: Zero123) -> tuple[torch.Tensor, torch.Tensor]:
    return model.context(model.embed(PICTURES), POSE), model.condition_latent(PICTURES)
