import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from conf.options import UserError
from tests.support.small_model import mean_loss
from training.model.checkpoints import checkpoint, checkpoint_folder
from training.model.checkpoints.pretrained import extend_input


@pytest.fixture
def saved(model, tmp_path):
    checkpoint.save(model, tmp_path / "model")
    return tmp_path / "model"


def test_round_trip(model, saved, batch):
    loaded = checkpoint.load(saved)
    assert not loaded.training
    state, back = model.state_dict(), loaded.state_dict()
    assert state.keys() == back.keys()
    assert all(torch.equal(state[key], back[key]) for key in state)
    assert torch.equal(loaded.alphas_cumprod, model.alphas_cumprod)
    assert (loaded.scheduler.config["clip_sample"], loaded.resolution) == (True, model.resolution)
    first, second = (mean_loss(m, batch, torch.Generator().manual_seed(0)) for m in (model, loaded))
    assert torch.equal(first, second)


def test_layout_is_the_community_pipelines(saved):
    files = sorted(str(path.relative_to(saved)) for path in saved.rglob("*") if path.is_file())
    assert files == [
        "cc_projection/config.json",
        "cc_projection/diffusion_pytorch_model.safetensors",
        "feature_extractor/preprocessor_config.json",
        "image_encoder/config.json",
        "image_encoder/model.safetensors",
        "model_index.json",
        "scheduler/scheduler_config.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ]
    index = json.loads((saved / "model_index.json").read_text())
    assert index["_class_name"] == "Zero1to3StableDiffusionPipeline"
    assert index["unet"] == ["diffusers", "UNet2DConditionModel"]
    assert index["scheduler"] == ["diffusers", "DDIMScheduler"]
    weights = load_file(saved / "cc_projection/diffusion_pytorch_model.safetensors")
    assert {key: tuple(value.shape) for key, value in weights.items()} == {
        "projection.weight": (16, 20),
        "projection.bias": (16,),
    }


def test_saving_replaces_the_parts_and_keeps_a_file_of_the_user(model, saved):
    with torch.no_grad():
        model.unet.conv_in.weight.zero_()
    (saved / "unet/stale").write_text("")
    (saved / "notes.txt").write_text("mine")
    checkpoint.save(model, saved)
    assert [path.name for path in saved.parent.iterdir()] == ["model"]
    assert not (saved / "unet/stale").exists()
    assert (saved / "notes.txt").read_text() == "mine"
    assert not checkpoint.load(saved).unet.conv_in.weight.any()


def test_saving_to_a_link_replaces_its_target(model, saved, tmp_path):
    (tmp_path / "disk").mkdir()
    link = tmp_path / "link"
    for target in ("disk", "model"):  # an empty folder, and an earlier checkpoint
        link.symlink_to(tmp_path / target)
        checkpoint.save(model, link)
        assert link.is_symlink()
        checkpoint.load(tmp_path / target)
        link.unlink()
    assert {path.name for path in tmp_path.iterdir()} == {"disk", "model"}


def refusal(folder) -> str:
    with pytest.raises(UserError) as caught:
        checkpoint.load(folder)
    sentence = str(caught.value)
    assert len(sentence.splitlines()) == 1
    return sentence


def test_a_missing_folder_is_refused(tmp_path):
    assert refusal(tmp_path / "nowhere").startswith(f"there is no folder {tmp_path / 'nowhere'}")
    assert "model_index.json is missing" in refusal(tmp_path)


@pytest.mark.parametrize("part", checkpoint_folder.PARTS)
def test_a_folder_without_a_part_is_refused(saved, part):
    shutil.rmtree(saved / part)
    assert f"there is no folder {saved / part}" in refusal(saved)


@pytest.mark.parametrize("part", ["unet", "image_encoder"])
def test_missing_weight_files_are_refused(saved, part):
    next((saved / part).glob("*.safetensors")).unlink()
    assert f"{saved / part} is incomplete: its weights are missing" in refusal(saved)


@pytest.mark.parametrize("part", ["unet", "image_encoder", "cc_projection"])
def test_cut_off_weights_are_refused(saved, part):
    path = next((saved / part).glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-100])
    assert f"{path} is no checkpoint, or cut off" in refusal(saved)


@pytest.mark.parametrize("part", ["unet", "image_encoder", "cc_projection"])
def test_a_missing_weight_is_refused(saved, part):
    path = next((saved / part).glob("*.safetensors"))
    weights = load_file(path)
    name = sorted(weights)[0]
    del weights[name]
    save_file(weights, path, metadata={"format": "pt"})
    assert f"is incomplete: 1 weights are missing, {name}" in refusal(saved)


def test_a_damaged_configuration_is_refused(saved):
    (saved / "unet/config.json").write_text("{")
    assert "unet/config.json is damaged" in refusal(saved)


def test_plain_stable_diffusion_is_refused(saved):
    index = json.loads((saved / "model_index.json").read_text())
    del index["cc_projection"]
    (saved / "model_index.json").write_text(json.dumps(index))
    assert "is no Zero-1-to-3 checkpoint: it has no cc_projection" in refusal(saved)


def test_a_unet_without_condition_channels_is_refused(model, saved):
    narrow = model.unet.from_config({**model.unet.config, "in_channels": 12})
    narrow.save_pretrained(saved / "unet")
    assert "its unet has 12 input channels, not 24" in refusal(saved)
    extend_input(narrow, 24).save_pretrained(saved / "unet")
    checkpoint.load(saved)


@pytest.mark.parametrize("name", ["os.system", "AutoModel"])
def test_foreign_class_names_are_compared_not_imported(saved, name):
    index = json.loads((saved / "model_index.json").read_text())
    index["unet"] = ["os", name]
    (saved / "model_index.json").write_text(json.dumps(index))
    assert f"its unet is {name}" in refusal(saved)


def test_pickles_are_not_opened(saved):
    path = saved / "unet/diffusion_pytorch_model.safetensors"
    torch.save(load_file(path), saved / "unet/diffusion_pytorch_model.bin")
    path.unlink()
    assert f"{saved / 'unet'} is incomplete: its weights are missing" in refusal(saved)


def test_another_image_encoder_is_refused(saved):
    (saved / "image_encoder/config.json").write_text(json.dumps({"model_type": "bert"}))
    assert "holds a bert, not a CLIP vision model" in refusal(saved)


@pytest.mark.parametrize(
    ("file", "changes", "sentence"),
    [
        ("unet/config.json", {"block_out_channels": 5}, "unet cannot be read as UNet2DConditionModel"),
        ("unet/config.json", {"norm_num_groups": 0}, "unet cannot be read as UNet2DConditionModel"),
        ("image_encoder/config.json", {"hidden_act": "foo"}, "cannot be read as CLIPVisionModelWithProjection"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": -5}, "cannot be read as a DDIMScheduler"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10}, "num_train_timesteps=10 is not"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**12}, "num_train_timesteps=10+ is not"),
        ("unet/config.json", {"layers_per_block": 10**9}, "more layers than its weights have"),
        ("image_encoder/config.json", {"num_hidden_layers": 10**9}, "more layers than its weights have"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "foo"}, "cannot be read as a DDIMScheduler"),
        ("scheduler/scheduler_config.json", {"prediction_type": "foo"}, "'foo' is not a valid Prediction"),
    ],
)
def test_invalid_part_configurations_are_refused(saved, file, changes, sentence):
    path = saved / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(UserError, match=sentence) as caught:
        checkpoint.load(saved, untrusted=True)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("text", ["[1]", "[" * 100_000, "\xff"])
def test_a_configuration_that_is_not_an_object_is_refused(saved, text):
    (saved / "unet/config.json").write_text(text)
    with pytest.raises(UserError, match="config.json is damaged: "):
        checkpoint.load(saved)


def test_a_unet_with_other_conditioning_is_refused(model, saved):
    model.unet.register_to_config(addition_embed_type="text_time")
    with pytest.raises(UserError, match="its unet has addition_embed_type=text_time"):
        checkpoint.check_fit(model, saved)
