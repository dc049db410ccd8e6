from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conf.options import FieldError, UserError
from rendering.cameras import camera_centre
from tests.support.dots import sample_of_dots, views_of_dots
from tests.support.small_model import SMALL, mean_loss, random_pairs
from training.data.batches import collate
from training.data.view_pairs import open_views
from training.model.architecture import build
from training.model.checkpoints import checkpoint
from training.model.checkpoints.pretrained import extend_input
from training.model.conditioning import PoseVector
from training.model.config import Architecture, Prediction, UNetShape
from training.model.zero123 import Zero123


def parameters(module) -> int:
    return sum(p.numel() for p in module.parameters())


def full_size_on_meta() -> Zero123:
    with torch.device("meta"):
        return build(Architecture()).to("meta")


def test_full_size_model_has_the_parameters_of_stable_diffusion_and_clip():
    model = full_size_on_meta()
    assert parameters(model.unet) == 859_532_484  # 859,520,964 of SD v1 and 4·320·9 for four more channels
    assert parameters(model.image_encoder) == 303_966_208
    assert parameters(model.cc_projection) == 772 * 768 + 768
    assert model.unet.config["in_channels"] == 8 and model.resolution == 256


def test_full_size_training_step_on_the_meta_device():
    model = full_size_on_meta()
    with torch.device("meta"):
        batch = {"target": torch.empty(2, 3, 256, 256), "condition": torch.empty(2, 3, 256, 256)}
        mean_loss(model, {**batch, "pose": torch.empty(2, 4)}).backward()
    assert model.unet.conv_in.weight.grad.shape == (320, 8, 3, 3)


@pytest.mark.slow
def test_full_size_training_step_on_a_cpu():
    model = build(Architecture())
    loss = mean_loss(model, random_pairs(1, 256), torch.Generator().manual_seed(0))
    loss.backward()
    assert loss.isfinite() and model.unet.conv_in.weight.grad.isfinite().all()


def test_weights_depend_on_the_seed_and_the_global_generator_is_unchanged():
    before = torch.random.get_rng_state()
    first, again, other = (build(SMALL, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["unet.conv_in.weight"], other["unet.conv_in.weight"])


def test_new_input_channels_do_not_change_the_first_prediction(model):
    narrow = model.unet.from_config({**model.unet.config, "in_channels": 12})
    wide = extend_input(narrow, 24)
    x, y = torch.randn(2, 2, 12, 8, 8, generator=torch.Generator().manual_seed(0))
    rest = torch.tensor([3, 900]), torch.randn(2, 1, 16)
    with torch.no_grad():
        assert torch.allclose(wide(torch.cat([x, y], 1), *rest).sample, narrow(x, *rest).sample, atol=1e-5)
    assert wide.config["in_channels"] == 24


def test_pretrained_parts_are_loaded_and_the_unet_extended(model, tmp_path):
    narrow = model.unet.from_config({**model.unet.config, "in_channels": 12})
    narrow.save_pretrained(tmp_path / "unet")
    model.image_encoder.save_pretrained(tmp_path / "image_encoder")
    started = build(replace(SMALL, pretrained=str(tmp_path)), seed=9)
    assert torch.equal(started.unet.conv_in.weight[:, :12], narrow.conv_in.weight)
    assert not started.unet.conv_in.weight[:, 12:].any()
    assert torch.equal(started.image_encoder.visual_projection.weight, model.image_encoder.visual_projection.weight)


def test_continuing_with_another_noise_schedule_is_reported(model, tmp_path, caplog):
    checkpoint.save(model, tmp_path / "model")
    start = replace(SMALL, pretrained=str(tmp_path / "model"))
    build(start)
    assert not caplog.records
    for other, words in (
        (replace(start, beta_end=0.02), ("model.beta_end=0.012", "0.02")),
        (replace(start, prediction=Prediction.v_prediction), (f"model.prediction={SMALL.prediction}", "v_prediction")),
    ):
        build(other)
        assert len(caplog.records) == 1
        assert all(word in caplog.text for word in words)
        caplog.clear()


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (replace(SMALL, resolution=18), "resolution=18"),
        (replace(SMALL, unet=UNetShape([16, 32], [True])), r"channels=\[16, 32\]"),
        (replace(SMALL, unet=UNetShape([20, 40], [True, True], groups=8)), r"channels=\[20, 40\]"),
        (replace(SMALL, resolution=-16), "resolution=-16"),
        (replace(SMALL, patch=0), "patch=0"),
        (replace(SMALL, unet=UNetShape([16, 32], [True, True], heads=0)), "heads=0"),
        (replace(SMALL, unet=UNetShape([], [])), r"channels=\[\]"),
        (replace(SMALL, encoder=replace(SMALL.encoder, layers=0)), "layers=0"),
        (replace(SMALL, encoder=replace(SMALL.encoder, width=17)), "width=17"),
        (replace(SMALL, encoder=replace(SMALL.encoder, patch_size=17)), "patch_size=17"),
        (replace(SMALL, scaling_factor=0), "scaling_factor=0"),
    ],
)
def test_invalid_settings_are_refused_by_field(wrong, named):
    with pytest.raises(FieldError, match=f"^{named}: must "):
        build(wrong)


@pytest.mark.parametrize("field", ["pretrained", "image_encoder"])
def test_a_missing_source_is_refused(field):
    with pytest.raises(UserError, match="nowhere"):
        build(replace(SMALL, **{field: "nowhere"}))


@pytest.fixture
def stable(model, tmp_path) -> Path:
    """Checkpoint folder of a model with the pose vector of Stable-Zero123."""
    model.cc_projection.register_to_config(pose_vector="stable_zero123")
    checkpoint.save(model, tmp_path / "stable")
    return tmp_path / "stable"


def test_training_continues_with_the_pose_vector_of_stable_zero123(stable, tmp_path):
    trained = build(replace(SMALL, pretrained=str(stable)))
    checkpoint.save(trained, tmp_path / "trained")
    assert checkpoint.load(tmp_path / "trained").cc_projection.pose_vector is PoseVector.stable_zero123


def test_training_computes_the_pose_vector_of_stable_zero123(stable):
    """The fourth number is radians(90 - elevation of the condition camera), from the cameras in the shards."""
    views = open_views(sample_of_dots(0), lambda name: np.full((16, 16, 3), int(name[2]), np.uint8))
    batch = collate([views.pair(2, 0), views.pair(1, 3)])
    x, y, z = camera_centre(views_of_dots(0)[1])[[2, 1]].T
    elevation = np.degrees(np.arctan2(z, np.hypot(x, y)))

    trained, plain = build(replace(SMALL, pretrained=str(stable))), build(SMALL)
    assert torch.equal(plain.pose(batch), batch["pose"])
    assert torch.equal(trained.pose(batch)[:, :3], batch["pose"][:, :3])
    assert trained.pose(batch)[:, 3].tolist() == pytest.approx(np.radians(90 - elevation).tolist(), abs=1e-6)

    torch.nn.init.normal_(trained.cc_projection.projection.weight)
    lower = {**batch, "condition_polar": batch["condition_polar"] + 1}
    losses = [mean_loss(trained, pairs, torch.Generator().manual_seed(0), drop=0) for pairs in (batch, lower)]
    assert losses[0] != losses[1]
