"""A small model of random weights that depends on the pose, and a picture."""

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from inference.evaluation.metrics.clip import load_clip
from inference.evaluation.metrics.weights import MetricWeights
from inference.novel_view import NovelView
from inference.preprocess.framing import Prepared
from training.model.architecture import build
from training.model.checkpoints import checkpoint
from training.model.config import Architecture, ImageEncoderShape, UNetShape

SHAPE = Architecture(
    resolution=16,
    patch=2,
    unet=UNetShape(channels=[16, 32], attention=[False, True], layers=1, heads=2, groups=8),
    encoder=ImageEncoderShape(image_size=16, patch_size=8, width=16, layers=1, heads=2, projection=16),
)


@pytest.fixture(scope="package")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "model"
    model = build(SHAPE, seed=3)
    model.cc_projection.projection.weight.data[:, -4:] = 1.0
    checkpoint.save(model, folder)
    return folder


@pytest.fixture(scope="package")
def stable_folder(tmp_path_factory):
    """The folder of a model with Stable-Zero123's pose vector."""
    model = build(SHAPE, seed=3)
    model.cc_projection.register_to_config(pose_vector="stable_zero123")
    folder = tmp_path_factory.mktemp("stable") / "model"
    checkpoint.save(model, folder)
    return folder


@pytest.fixture(scope="package")
def novel_view(folder):
    return NovelView.load(folder, "cpu")


@pytest.fixture(scope="package")
def front() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8))


@pytest.fixture(scope="package")
def prepared(front) -> Prepared:
    """The input of the model, without a cutout."""
    return Prepared(front, front)


@pytest.fixture
def picture(front, tmp_path):
    """A file of the picture whose alpha outlines the object."""
    alpha = Image.new("L", front.size, 0)
    alpha.paste(255, (3, 3, 13, 13))
    cut = front.copy()
    cut.putalpha(alpha)
    cut.save(tmp_path / "front.png")
    return tmp_path / "front.png"


@pytest.fixture(scope="package")
def pipeline(tmp_path_factory):
    """Folder of a tiny Stable Diffusion of random weights."""
    folder = tmp_path_factory.mktemp("text") / "pipeline"
    letters = [letter + end for letter in "abcdefghijklmnopqrstuvwxyz," for end in ("", "</w>")]
    words = {word: i for i, word in enumerate(["<|startoftext|>", "<|endoftext|>", *letters])}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(words), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
                max_position_embeddings=77, bos_token_id=0, eos_token_id=1, pad_token_id=1,
            )
        )  # fmt: skip
        unet = UNet2DConditionModel(
            sample_size=16, block_out_channels=(16, 16), layers_per_block=1, norm_num_groups=4, cross_attention_dim=16,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        )  # fmt: skip
        vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4)
    tokenizer, scheduler = CLIPTokenizer(words, model_max_length=77), DDIMScheduler(steps_offset=1, clip_sample=False)
    whole = StableDiffusionPipeline(vae, text, tokenizer, unet, scheduler, None, None, None, False)
    whole.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
    """The folder of a small CLIP vision model with random weights."""
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = CLIPVisionConfig(**shape, image_size=32, patch_size=8, projection_dim=6)
    folder = tmp_path_factory.mktemp("clip")
    CLIPVisionModelWithProjection(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def clip_encoder(clip_folder):
    return load_clip(MetricWeights(clip=str(clip_folder)), torch.device("cpu"))
