"""The command inference.text_to_views, with a tiny Stable Diffusion of random weights."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file, save_file

from conf.options import UserError
from inference.views.text_to_image import load_pipeline
from tests.support.command import command


def text_to_views(pipeline, folder, output, *words):
    return command(
        "inference.text_to_views", f"text_to_image={pipeline}", f"checkpoint={folder}", f"output={output}",
        "text_steps=2", "sampling.steps=2", "cutout=none", "fill=0", "elevation=10", "orbit=2",
        *(words or ("prompt=a chair",)),
    )  # fmt: skip


def test_a_prompt_becomes_a_picture_and_its_views(pipeline, folder, tmp_path):
    out = tmp_path / "out"
    done = text_to_views(pipeline, folder, out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"2 views of “a chair”: {out / 'views.png'}"
    assert sorted(path.name for path in out.iterdir()) == [
        "000.png", "001.png", "input.png", "poses.json", "prompt.json", "prompt.png", "views.gif", "views.mp4",
        "views.png",
    ]  # fmt: skip
    picture = Image.open(out / "prompt.png")
    expected = StableDiffusionPipeline.from_pretrained(pipeline, safety_checker=None)(
        "a chair, a single object, centred, on a plain white background",
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(0),
    ).images[0]
    np.testing.assert_array_equal(np.asarray(picture), np.asarray(expected))
    made = (out / "prompt.png").stat().st_mtime_ns
    assert text_to_views(pipeline, folder, out).returncode == 0
    assert (out / "prompt.png").stat().st_mtime_ns == made
    (out / "prompt.png").unlink()
    assert text_to_views(pipeline, folder, out).returncode == 0
    np.testing.assert_array_equal(np.asarray(Image.open(out / "prompt.png")), np.asarray(picture))
    assert text_to_views(pipeline, folder, out, "prompt=a bench").returncode == 0
    assert np.asarray(Image.open(out / "prompt.png")).tolist() != np.asarray(picture).tolist()


def test_pipelines_with_code_or_missing_parts_are_refused(pipeline, folder, tmp_path):
    foreign = shutil.copytree(pipeline, tmp_path / "foreign")
    (foreign / "unet/mine.py").write_text("open('/tmp/executed', 'w')")
    index = json.loads((foreign / "model_index.json").read_text())
    (foreign / "model_index.json").write_text(json.dumps({**index, "unet": ["mine", "UNet"]}))
    (tmp_path / "empty").mkdir()
    cut = shutil.copytree(pipeline, tmp_path / "cut")
    weights = cut / "unet/diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:9999])
    for source, sentence in [
        (foreign, f"text_to_image={foreign}: has its own code (mine.py)"),
        (tmp_path / "empty", f"text_to_image={tmp_path / 'empty'}: is not a readable diffusers pipeline"),
        (cut, f"text_to_image={cut}: is not a readable diffusers pipeline"),
        (folder, f"text_to_image={folder}: is not a readable diffusers pipeline"),
    ]:
        done = text_to_views(source, folder, tmp_path / "out")
        assert done.returncode == 2, done.stderr
        assert done.stderr.splitlines()[-1].startswith(f"error: {sentence}"), done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["index", "configuration", "weights"])
def test_a_damaged_pipeline_is_refused(pipeline, tmp_path, damage):
    folder = shutil.copytree(pipeline, tmp_path / "damaged")
    if damage == "index":
        (folder / "model_index.json").write_text("[]")
    elif damage == "configuration":
        config = json.loads((folder / "unet/config.json").read_text())
        (folder / "unet/config.json").write_text(json.dumps(config | {"block_out_channels": 5}))
    else:
        weights = load_file(folder / "unet/diffusion_pytorch_model.safetensors")
        weights["conv_in.bias"] = torch.zeros(3)
        save_file(weights, folder / "unet/diffusion_pytorch_model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=f"text_to_image={folder}: is not a readable diffusers pipeline") as caught:
        load_pipeline(str(folder), torch.device("cpu"))
    assert len(str(caught.value).splitlines()) == 1


def test_an_empty_prompt_is_refused(pipeline, folder, tmp_path):
    done = text_to_views(pipeline, folder, tmp_path / "out", "prompt=''")
    assert done.returncode == 2 and done.stderr.startswith("error: prompt: ") and done.stderr.count("\n") == 1
