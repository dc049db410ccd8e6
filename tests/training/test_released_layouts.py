"""Layouts of published weights, and files that users mistake for a checkpoint."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from conf.options import UserError
from tests.support.originals import (
    State,
    assert_same,
    averaged,
    convert,
    refusal,
    weights,
    write_original,
)
from training.model.checkpoints.pretrained import load_posed, read_frozen
from training.model.conditioning import PoseVector

UNET, CLIP = "model.diffusion_model.", "cond_stage_model.model.visual."


# ---- names


def wrapped_everywhere(state: State) -> State:
    return {f"_orig_mod.module.{name}": tensor for name, tensor in state.items()}


def wrapped_within(state: State) -> State:
    """Add the prefix of torch.compile(model.model.diffusion_model), also in the average, whose names have no dots."""
    renamed = {name.replace(UNET, UNET + "_orig_mod."): tensor for name, tensor in state.items()}
    return {
        name.replace("model_ema.diffusion_model", "model_ema.diffusion_model_orig_mod"): t
        for name, t in renamed.items()
    }


@pytest.mark.parametrize(
    "rename",
    [
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {f"_orig_mod.{name}": tensor for name, tensor in state.items()},
        lambda state: {f"_forward_module.{name}": tensor for name, tensor in state.items()},
        wrapped_everywhere,
        wrapped_within,
    ],
)
@pytest.mark.parametrize("kind", ["ckpt", "safetensors"])
def test_prefixes_of_wrappers_are_removed(state, tmp_path, rename, kind):
    file = tmp_path / f"wrapped.{kind}"
    if kind == "ckpt":
        write_original(file, rename(state))
    else:
        save_file(rename(state), file)
    assert_same(weights(convert(file, tmp_path / "folder")), averaged(state))


def test_a_tensor_with_and_without_a_wrapper_prefix_is_refused(state, tmp_path):
    twice = {**state, f"module.{UNET}out.2.bias": torch.zeros(4)}
    assert f"{UNET}out.2.bias is there twice" in refusal(write_original(tmp_path / "twice.ckpt", twice))


@pytest.mark.parametrize("part", ["unet", "vae", "image_encoder", "cc_projection"])
def test_a_part_saved_with_wrapper_prefixes_is_read(folder, state, part):
    file = next((folder / part).glob("*.safetensors"))
    save_file({f"module._orig_mod.{name}": t for name, t in load_file(file).items()}, file, metadata={"format": "pt"})
    assert_same(weights(folder), averaged(state))


def transformers_names(state: State, folder: Path, prefix: str) -> State:
    """Return the tensors with the image encoder under the names of transformers."""
    others = {name: tensor for name, tensor in state.items() if not name.startswith(CLIP)}
    vision = load_file(folder / "image_encoder/model.safetensors")
    text = {"text_model.final_layer_norm.bias": torch.zeros(4), "logit_scale": torch.zeros(())}
    positions = {"vision_model.embeddings.position_ids": torch.arange(5)[None]}
    return others | {prefix + name: tensor for name, tensor in (vision | text | positions).items()}


@pytest.mark.parametrize("prefix", ["transformer.", "model.", "model.transformer.", ""])
def test_image_encoder_under_names_of_transformers_is_read(folder, state, tmp_path, prefix):
    renamed = transformers_names(state, folder, f"cond_stage_model.{prefix}")
    file = write_original(tmp_path / "hf.ckpt", {f"module.{name}": tensor for name, tensor in renamed.items()})
    assert_same(weights(convert(file, tmp_path / "out")), averaged(state))


def test_openais_image_encoder_under_another_prefix_is_read(state, tmp_path):
    moved = {name.replace(CLIP, "cond_stage_model.visual."): tensor for name, tensor in state.items()}
    assert_same(weights(convert(write_original(tmp_path / "a.ckpt", moved), tmp_path / "out")), averaged(state))


def test_image_encoder_with_missing_queries_is_refused(folder, state, tmp_path):
    renamed = transformers_names(state, folder, "cond_stage_model.transformer.")
    del renamed["cond_stage_model.transformer.vision_model.encoder.layers.0.self_attn.q_proj.bias"]
    message = refusal(write_original(tmp_path / "a.ckpt", renamed))
    assert "is incomplete" in message and "needs q, k and v" in message


# ---- shards


def shard(file: Path, variant: str = "", pickled: bool = False, index: str | None = None) -> Path:
    """Split a file of weights into three, as save_pretrained does under max_shard_size, and remove it."""
    stem, tensors = file.name.split(".")[0], load_file(file)
    ending, names = "bin" if pickled else "safetensors", sorted(tensors)
    weight_map = {}
    for i in range(3):
        part = f"{stem}{variant}-{i + 1:05d}-of-00003.{ending}"
        held = {name: tensors[name].half() if variant else tensors[name] for name in names[i::3]}
        weight_map |= dict.fromkeys(held, part)
        if pickled:
            torch.save(held, file.parent / part)
        else:
            save_file(held, file.parent / part, metadata={"format": "pt"})
    file.unlink()
    written = file.with_name(index or f"{stem}.{ending}.index{variant}.json")
    written.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return written


def each_part(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


@pytest.mark.parametrize("pickled", [False, True])
def test_parts_in_shards_are_read(folder, state, tmp_path, pickled):
    for file in each_part(folder):
        shard(file, pickled=pickled)
    assert_same(weights(convert(folder, tmp_path / "whole")), averaged(state))
    model = load_posed(folder)
    assert not model.image_encoder.vision_model.embeddings.position_ids.is_meta


@pytest.mark.parametrize("index", [None, "{}.fp16.safetensors.index.json"])
def test_shards_in_half_precision_only_are_read(folder, tmp_path, index):
    half = {name: t.half().float() for name, t in weights(folder).items() if t.ndim}
    for file in each_part(folder):
        shard(file, ".fp16", index=index and index.format(file.name.split(".")[0]))
    taken = weights(convert(folder, tmp_path / "whole"))
    assert all(torch.equal(taken[name], half[name]) for name in half)


def test_full_precision_and_safetensors_take_precedence(folder, state):
    for file in each_part(folder):
        stem = file.name.split(".")[0]
        zeros = {name: torch.zeros_like(tensor) for name, tensor in load_file(file).items()}
        save_file({name: t.half() for name, t in zeros.items()}, file.with_name(f"{stem}.fp16.safetensors"))
        torch.save(zeros, file.with_name(f"{stem}.bin"))
    model = load_posed(folder)
    assert torch.equal(model.unet.conv_in.weight, averaged(state)[f"{UNET}input_blocks.0.0.weight"])
    assert model.image_encoder.visual_projection.weight.any() and model.cc_projection.projection.weight.any()


def test_the_original_layout_in_shards_is_read(state, tmp_path):
    """DeepSpeed's zero_to_fp32.py writes such a folder."""
    folder = tmp_path / "consolidated"
    folder.mkdir()
    save_file({f"_forward_module.{name}": t for name, t in state.items()}, folder / "pytorch_model.safetensors")
    shard(folder / "pytorch_model.safetensors", pickled=True)
    assert_same(weights(convert(folder, tmp_path / "out")), averaged(state))
    assert read_frozen(folder).image_encoder is not None
    assert load_posed(folder).cc_projection.pose_vector == PoseVector.zero123


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("../vae/diffusion_pytorch_model.safetensors", "is no .safetensors or .bin file in the same folder"),
        ("/etc/passwd", "is no .safetensors or .bin file in the same folder"),
        ("diffusion_pytorch_model.safetensors.index.json", "is no .safetensors or .bin file in the same folder"),
        (
            "diffusion_pytorch_model-00009-of-00003.safetensors",
            "is incomplete: its shard diffusion_pytorch_model-00009",
        ),
    ],
)
def test_an_index_that_names_files_elsewhere_is_refused(folder, name, sentence):
    index = shard(folder / "unet/diffusion_pytorch_model.safetensors")
    contents = json.loads(index.read_text())
    contents["weight_map"][next(iter(contents["weight_map"]))] = name
    index.write_text(json.dumps(contents))
    assert sentence in refusal(folder)


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"weight_map": 5}', '{"weight_map": {"a": [1]}}', '{"weight_map": {"a": "b", "c": 5}}', "[" * 100_000],
)
def test_a_damaged_index_is_refused(folder, text):
    shard(folder / "unet/diffusion_pytorch_model.safetensors").write_text(text)
    assert "is no index of shards, or damaged" in refusal(folder)


def test_a_missing_shard_is_refused(folder):
    shard(folder / "unet/diffusion_pytorch_model.safetensors")
    (folder / "unet/diffusion_pytorch_model-00002-of-00003.safetensors").unlink()
    assert "its shard diffusion_pytorch_model-00002-of-00003.safetensors is missing" in refusal(folder)


# ---- what is no model


@pytest.mark.parametrize(
    "name",
    [
        "unet.down_blocks.0.attentions.0.to_q.lora_A.weight",
        "lora_unet_down_blocks_0_attentions_0_to_q.lora_down.weight",
        "unet.down_blocks.0.attentions.0.processor.to_q_lora.down.weight",
        "base_model.model.to_q.lora_B.default.weight",
    ],
)
def test_adapters_are_refused_by_name(tmp_path, name):
    folder = tmp_path / "lora"
    folder.mkdir()
    save_file({name: torch.ones(2, 2)}, folder / "pytorch_lora_weights.safetensors")
    assert "LoRA" in refusal(folder) and "merge it into its base model" in refusal(folder)
    assert "LoRA" in refusal(folder / "pytorch_lora_weights.safetensors")


def a_run(root: Path, folder: Path, model: str | None) -> Path:
    run = root / "run"
    (run / "checkpoints/00000010/state").mkdir(parents=True)
    (run / "training.yaml").write_text("trainer: {max_steps: 10}\n")
    (run / "checkpoints/00000010/state/mp_rank_00_model_states.pt").touch()
    if model:
        shutil.copytree(folder, run / model)
    return run


@pytest.mark.parametrize("model", ["model", "best"])
@pytest.mark.parametrize("within", ["", "checkpoints", "checkpoints/00000010", "checkpoints/00000010/state"])
def test_a_run_folder_is_refused_by_naming_its_model(folder, tmp_path, model, within):
    run = a_run(tmp_path, folder, model)
    assert str(run / model) in refusal(run / within, tmp_path / "out")


def test_a_run_without_a_model_is_refused(folder, state, tmp_path):
    run = a_run(tmp_path, folder, "model")
    assert_same(weights(convert(run / "model", tmp_path / "out")), averaged(state))
    shutil.rmtree(run / "model")
    assert "it has no model yet" in refusal(run)
    with pytest.raises(UserError, match="it has no model yet"):
        load_posed(run)
    with pytest.raises(UserError, match="it has no model yet"):
        read_frozen(run)


@pytest.mark.parametrize("files", [["latest", "global_step5/mp_rank_00_model_states.pt"], ["zero_to_fp32.py"]])
def test_training_states_of_deepspeed_are_refused_by_name(tmp_path, files):
    folder = tmp_path / "state"
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    assert "DeepSpeed" in refusal(folder) and "<run>/model" in refusal(folder)


def test_copied_training_states_are_refused_by_name(tmp_path):
    file = write_original(tmp_path / "last.ckpt", {"model.unet.conv_in.weight": torch.ones(1)})
    assert "training state of training.finetune; give <run>/model" in refusal(file)


def test_a_single_part_is_refused_by_name(folder, tmp_path):
    assert f"give the folder around it, {folder}" in refusal(folder / "unet", tmp_path / "out")
    assert "is the U-Net alone" in refusal(folder / "unet/diffusion_pytorch_model.safetensors", tmp_path / "out")


def test_a_folder_of_several_files_requires_a_name(source):
    assert f"name one of its files, as {source}" in refusal(source.parent, source.parent.parent / "out")


# ---- Stable-Zero123's pose vector


@pytest.mark.parametrize("pose_vector", PoseVector)
def test_pose_vector_recorded_in_a_file_is_used(source, tmp_path, pose_vector):
    stable = source.rename(tmp_path / "stable_zero123.ckpt")
    with pytest.raises(UserError, match="pose_vector=stable_zero123"):
        load_posed(stable)
    written = convert(stable, tmp_path / "stable.ckpt", pose_vector=pose_vector)
    assert load_posed(written).cc_projection.pose_vector == pose_vector
    again = convert(written, tmp_path / "stable-again.ckpt")
    assert load_posed(again).cc_projection.pose_vector == pose_vector
