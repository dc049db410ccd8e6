"""Conversion of published checkpoints to this project's layout and back."""

import json

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from diffusers.schedulers.scheduling_pndm import PNDMScheduler
from safetensors.torch import load_file, save_file

from conf.options import UserError
from tests.support.command import command
from tests.support.originals import State, assert_same, averaged, convert, refusal, weights, write_original
from training.config import Layout
from training.model.architecture import build
from training.model.checkpoints import checkpoint
from training.model.checkpoints.pretrained import read
from training.model.conditioning import PoseVector
from training.model.config import Architecture
from training.model.hardware.precision import Precision
from training.model.zero123 import Prediction, Zero123, noise_schedule

CONV_IN = "input_blocks.0.0.weight"


# ---- the original's files


def test_a_released_checkpoint_is_converted_to_a_folder(source, state, tmp_path):
    done = command("training.convert", f"source={source}", f"target={tmp_path}/zero123")
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.splitlines() == [
        "weights: the U-Net's moving average",
        f"model: {tmp_path}/zero123; next: python -m inference.sample checkpoint={tmp_path}/zero123 image=… "
        "'poses=[[20,45,0]]' output=outputs/views",
    ]
    assert_same(weights(tmp_path / "zero123"), averaged(state))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["105000.ckpt", "zero123"]
    index = json.loads((tmp_path / "zero123/model_index.json").read_text())
    assert index["_class_name"] == "Zero1to3StableDiffusionPipeline"


def test_the_converter_of_diffusers_agrees(folder, state):
    model = checkpoint.load(folder)
    unet = convert_ldm_unet_checkpoint(dict(state), model.unet.config, extract_ema=True)
    vae = convert_ldm_vae_checkpoint(dict(state), model.vae.config)
    assert_same(dict(model.unet.state_dict()), unet)
    assert_same(dict(model.vae.state_dict()), {name: tensor.reshape(tensor.shape) for name, tensor in vae.items()})


def test_round_trip_to_the_original_layout_keeps_all_tensors(folder, state, tmp_path):
    back = convert(folder, tmp_path / "back.ckpt")
    contents = torch.load(back, weights_only=True)
    assert_same(contents["state_dict"], averaged(state))
    assert back.stat().st_size < 1.1 * sum(t.nbytes for n, t in averaged(state).items() if "model_ema" not in n)
    assert_same(weights(convert(back, tmp_path / "again")), averaged(state))


def test_ema_false_converts_the_last_weights(source, state, tmp_path, capsys):
    taken = weights(convert(source, tmp_path / "last", ema=False))
    assert capsys.readouterr().out.startswith("weights: the U-Net's last ones\n")
    assert torch.equal(taken[f"model.diffusion_model.{CONV_IN}"], state[f"model.diffusion_model.{CONV_IN}"])


def test_a_checkpoint_without_a_moving_average_prints_so(state, tmp_path, capsys):
    bare = {name: tensor for name, tensor in state.items() if not name.startswith("model_ema.")}
    taken = weights(convert(write_original(tmp_path / "bare.ckpt", bare), tmp_path / "bare"))
    assert capsys.readouterr().out.startswith(
        "weights: the U-Net's last ones, because the source has no moving average"
    )
    assert torch.equal(taken[f"model.diffusion_model.{CONV_IN}"], state[f"model.diffusion_model.{CONV_IN}"])


def test_safetensors_in_half_precision_are_read_as_float32(state, tmp_path):
    half = {name: tensor.half().contiguous() for name, tensor in state.items()}
    save_file(half, tmp_path / "model.safetensors")
    taken = weights(convert(tmp_path / "model.safetensors", tmp_path / "whole"))
    assert_same(taken, {**averaged({name: tensor.float() for name, tensor in half.items()})})


def test_dtype_float16_is_written_and_read_as_float32(folder, tmp_path):
    half = convert(folder, tmp_path / "half", dtype=Precision.float16)
    for part in ("unet", "image_encoder"):
        file = next((half / part).glob("*.safetensors"))
        assert all(tensor.dtype == torch.float16 for tensor in load_file(file).values())
    model = checkpoint.load(half)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    whole = checkpoint.load(folder).unet.conv_in.weight
    assert torch.equal(model.unet.conv_in.weight, whole.half().float())


# ---- Stable Diffusion without poses


def image_conditioned(state: State) -> State:
    """`sd-image-conditioned-v2.ckpt`: four input channels, no cc_projection."""
    narrow = {name: tensor for name, tensor in state.items() if not name.startswith("cc_projection.")}
    for name in (f"model.diffusion_model.{CONV_IN}", "model_ema.diffusion_modelinput_blocks00weight"):
        narrow[name] = state[name][:, :4]
    return narrow


def assert_starts_from(model: Zero123, state: State) -> None:
    conv_in = model.unet.conv_in.weight
    assert torch.equal(conv_in[:, :4], state["model_ema.diffusion_modelinput_blocks00weight"][:, :4])
    assert conv_in.shape[1] == 8 and not conv_in[:, 4:].any()
    assert torch.equal(model.cc_projection.projection.weight, torch.eye(16, 20))
    assert not model.cc_projection.projection.bias.any()


def test_image_conditioned_stable_diffusion_is_converted_to_a_start_for_training(state, tmp_path, capsys):
    file = write_original(tmp_path / "sd-image-conditioned-v2.ckpt", image_conditioned(state))
    start = convert(file, tmp_path / "start")
    out = capsys.readouterr().out
    assert "without cc_projection" in out
    assert out.endswith(f"next: python -m training.finetune model.pretrained={start} data.path=…\n")
    assert_starts_from(checkpoint.load(start), state)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_training_starts_from_each_kind_of_source(state, tmp_path, kind):
    start = write_original(tmp_path / "sd-image-conditioned-v2.ckpt", image_conditioned(state))
    if kind == "folder":
        start = convert(start, tmp_path / "start")
    assert_starts_from(build(Architecture(pretrained=str(start)), seed=1), state)


def test_training_starts_from_a_released_checkpoint(source, state):
    model = build(Architecture(pretrained=str(source)), seed=1)
    assert torch.equal(model.cc_projection.projection.weight, state["cc_projection.weight"])
    assert torch.equal(model.unet.conv_in.weight, state["model_ema.diffusion_modelinput_blocks00weight"])
    assert model.unet.conv_in.weight.requires_grad and model.cc_projection.projection.weight.requires_grad


def test_image_variations_folder_is_converted_to_a_start_for_training(folder, state, tmp_path):
    """Four input channels, another scheduler and pickles, as in lambdalabs/sd-image-variations-diffusers at first."""
    model = checkpoint.load(folder)
    narrow = model.unet.from_config({**model.unet.config, "in_channels": 4, "sample_size": 64})
    wide = model.unet.state_dict()
    narrow.load_state_dict({**wide, "conv_in.weight": wide["conv_in.weight"][:, :4]})
    variations = tmp_path / "variations"
    narrow.save_pretrained(variations / "unet", safe_serialization=False)
    model.vae.save_pretrained(variations / "vae")
    (folder / "image_encoder").rename(variations / "image_encoder")
    PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").save_pretrained(
        variations / "scheduler"
    )
    started = checkpoint.load(convert(variations, tmp_path / "start"))
    assert_starts_from(started, state)
    assert started.unet.config["sample_size"] == 32
    assert dict(started.scheduler.config)["clip_sample"] is False


def test_a_source_without_an_image_encoder_needs_one(folder, state, tmp_path):
    encoder = (folder / "image_encoder").rename(tmp_path / "clip")
    assert refusal(folder) == f"{folder} has no image_encoder; add image_encoder=…"
    assert_same(weights(convert(folder, tmp_path / "whole", image_encoder=str(encoder))), averaged(state))


# ---- other folders


def test_round_trip_to_threestudios_layout_keeps_all_tensors(folder, state, tmp_path):
    converted = convert(folder, tmp_path / "threestudio", layout=Layout.threestudio)
    assert not (converted / "cc_projection").exists()
    projection = load_file(converted / "clip_camera_projection/diffusion_pytorch_model.safetensors")
    assert {name: tuple(t.shape) for name, t in projection.items()} == {"proj.weight": (16, 20), "proj.bias": (16,)}
    config = json.loads((converted / "clip_camera_projection/config.json").read_text())
    assert (config["embedding_dim"], config["additional_embeddings"]) == (16, 4)
    index = json.loads((converted / "model_index.json").read_text())
    assert index["_class_name"] == "Zero123Pipeline" and "cc_projection" not in index
    assert index["clip_camera_projection"] == ["zero123", "CLIPCameraProjection"]
    assert_same(weights(convert(converted, tmp_path / "ours")), averaged(state))


def test_a_folder_with_only_half_precision_weights_is_read(folder, tmp_path):
    model = checkpoint.load(folder).half()
    for part in ("unet", "vae", "image_encoder", "cc_projection"):
        getattr(model, part).save_pretrained(tmp_path / "half" / part, variant="fp16")
    assert not list((tmp_path / "half").rglob("*model.safetensors"))
    half = {name: tensor.half().float() for name, tensor in weights(folder).items() if "model_ema.decay" not in name}
    taken = weights(convert(tmp_path / "half", tmp_path / "whole"))
    assert all(torch.equal(taken[name], half[name]) for name in half)


def test_old_names_of_the_autoencoder_attention_are_read(folder, state, tmp_path):
    """Folders written in 2022 have these names."""
    file = folder / "vae/diffusion_pytorch_model.safetensors"
    new = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    old = load_file(file)
    for current, former in new.items():
        old = {name.replace(f"attentions.0.{current}.", f"attentions.0.{former}."): t for name, t in old.items()}
    assert any("query" in name for name in old)
    save_file(old, file, metadata={"format": "pt"})
    assert_same(weights(convert(folder, tmp_path / "new")), averaged(state))


# ---- Stable-Zero123


def test_pose_vector_of_stable_zero123_survives_every_conversion(source, tmp_path):
    stable = {"pose_vector": PoseVector.stable_zero123}
    chain = [source.rename(tmp_path / "stable_zero123.ckpt"), tmp_path / "folder"]
    assert "pose_vector=stable_zero123" in refusal(chain[0])
    with pytest.raises(UserError, match="may be Stable-Zero123"):
        build(Architecture(pretrained=str(chain[0])))
    convert(*chain, **stable)
    for name, options in [("a.ckpt", {}), ("b", {}), ("c", {"layout": Layout.threestudio}), ("d", {})]:
        chain.append(convert(chain[-1], tmp_path / name, **options))
    assert checkpoint.load(chain[-1]).cc_projection.pose_vector == PoseVector.stable_zero123
    plain = convert(chain[-1], tmp_path / "plain", pose_vector=PoseVector.zero123)
    assert checkpoint.load(plain).cc_projection.pose_vector == PoseVector.zero123
    assert "pose_vector" not in json.loads((plain / "cc_projection/config.json").read_text())


# ---- targets


def test_only_an_earlier_checkpoint_is_replaced(folder, source, tmp_path):
    (folder / "notes.txt").write_text("mine")
    (folder / "unet/stale").touch()
    convert(source, folder)
    assert (folder / "notes.txt").read_text() == "mine" and not (folder / "unet/stale").exists()
    assert checkpoint.load(folder)
    assert sorted(path.name for path in folder.parent.iterdir()) == [source.name, folder.name]
    convert(source, tmp_path / "a.ckpt")
    convert(source, tmp_path / "a.ckpt")
    mine = tmp_path / "mine"
    mine.mkdir()
    convert(source, mine)  # an empty folder is as good as none
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/thesis.txt").touch()
    assert f"target={tmp_path}/notes: " in refusal(source, tmp_path / "notes")
    assert (tmp_path / "notes/thesis.txt").exists()
    (tmp_path / "dir.ckpt").mkdir()
    assert f"target={tmp_path}/dir.ckpt: " in refusal(source, tmp_path / "dir.ckpt")


def test_targets_that_replace_the_source_or_fit_no_layout_are_refused(folder, source, tmp_path):
    assert f"target={source}: " in refusal(source, source)
    assert f"target={folder}: " in refusal(folder / "unet", folder)
    assert f"target={tmp_path}/x.safetensors: " in refusal(source, tmp_path / "x.safetensors")
    assert "layout=threestudio: " in refusal(source, tmp_path / "x.ckpt", layout=Layout.threestudio)


def test_models_that_the_originals_code_cannot_build_are_refused(folder, model, tmp_path):
    target = tmp_path / "x.ckpt"
    checkpoint.save(model, tmp_path / "pixels")
    assert "no place for a PatchAutoencoder" in refusal(tmp_path / "pixels", target)
    assert "threestudio's layout has no place" in refusal(tmp_path / "pixels", layout=Layout.threestudio)
    for file, key, value, other in [
        ("unet", "attention_head_dim", 4, 8),
        ("unet", "norm_eps", 1e-6, 1e-5),
        ("vae", "scaling_factor", 0.13025, 0.18215),
        ("image_encoder", "hidden_act", "gelu", "quick_gelu"),
    ]:
        path = folder / file / "config.json"
        before = path.read_text()
        path.write_text(json.dumps({**json.loads(before), key: value}))
        assert f"with {key}={value}, only {other}" in refusal(folder, target)
        path.write_text(before)
    noise_schedule(Prediction.v_prediction).save_pretrained(folder / "scheduler")
    assert "prediction_type=v_prediction, only epsilon" in refusal(folder, target)
    assert not target.exists()


def test_the_noise_schedule_of_the_source_is_kept(folder, tmp_path):
    noise_schedule(Prediction.v_prediction).save_pretrained(folder / "scheduler")
    assert checkpoint.load(convert(folder, tmp_path / "kept")).prediction == "v_prediction"
    assert read(folder).scheduler is not None
