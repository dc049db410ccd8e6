"""Checkpoint in the original's layout at reduced width, with weights determined by their names."""

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from conf.options import UserError
from training.config import ConvertConfig
from training.convert import main
from training.model.architecture import build
from training.model.checkpoints import checkpoint
from training.model.checkpoints.ldm_export import original_tensors
from training.model.config import Architecture, ImageEncoderShape, UNetShape
from training.model.zero123 import Zero123

State = dict[str, Tensor]

# Stable Diffusion v1 in everything but its width and the depth of CLIP.
REDUCED = Architecture(
    unet=UNetShape(channels=[32, 64, 128, 128]),
    encoder=ImageEncoderShape(width=128, layers=2, heads=2),
)
# Two levels, for tests independent of width and depth.
TINY = Architecture(
    unet=UNetShape(channels=[32, 64], attention=[True, False], layers=1),
    encoder=ImageEncoderShape(image_size=28, width=64, layers=1, heads=1, projection=16),
)
# Further tensors of a released checkpoint.
LEFTOVERS = {
    "betas": (1000,),
    "posterior_mean_coef1": (1000,),
    "sqrt_recipm1_alphas_cumprod": (1000,),
    "cond_stage_model.model.positional_embedding": (77, 64),
    "cond_stage_model.model.text_projection": (64, 768),
    "cond_stage_model.model.logit_scale": (),
    "cond_stage_model.model.token_embedding.weight": (100, 64),
    "cond_stage_model.model.ln_final.bias": (64,),
    "cond_stage_model.model.transformer.resblocks.0.ln_1.weight": (64,),
    "cond_stage_model.mean": (3,),
    "first_stage_model.loss.logvar": (),
}


def rule(name: str, shape: tuple[int, ...]) -> Tensor:
    """Return values determined by a tensor's name; convolutions are small, so that the ε of a normalisation matters."""
    values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if len(shape) > 1:
        values *= (0.2 if len(shape) == 4 else 1.0) / np.sqrt(np.prod(shape[1:]))
    else:
        values = 1 + 0.2 * values if name.endswith("weight") else 0.05 * values
    return torch.as_tensor(values, dtype=torch.float32)


def noise(name: str, *shape: int) -> Tensor:
    """Return standard normal numbers determined by a name."""
    return rule(f"{name}.bias", (int(np.prod(shape)),)).reshape(shape) * 20


def reduced(architecture: Architecture = REDUCED) -> Zero123:
    """Return the model without weights."""
    with torch.device("meta"):
        model = build(architecture).to("meta")
        channels = tuple(architecture.unet.channels)
        sides = {"down_block_types": ("DownEncoderBlock2D",), "up_block_types": ("UpDecoderBlock2D",)}
        blocks = {name: kind * len(channels) for name, kind in sides.items()}
        model.vae = AutoencoderKL(**{**model.vae.config, "block_out_channels": channels, **blocks})
    return model


def original_state(architecture: Architecture = REDUCED) -> State:
    """Return the tensors of a checkpoint."""
    shapes = {name: tuple(tensor.shape) for name, tensor in original_tensors(reduced(architecture)).items()}
    return {name: rule(name, shape) for name, shape in (shapes | LEFTOVERS).items()}


def write_original(path: Path, state: State, **besides: object) -> Path:
    torch.save({"state_dict": state, "global_step": 105000, **besides}, path)
    return path


def convert(source: Path, target: Path, **options) -> Path:
    assert main(ConvertConfig(source=str(source), target=str(target), **options)) == 0
    return target


def refusal(source: Path, target: Path | None = None, **options) -> str:
    """Return the one-line error of a refused conversion, after checking that it left no files."""
    with pytest.raises(UserError) as caught:
        convert(source, target or source.with_name("refused"), **options)
    assert len(str(caught.value).splitlines()) == 1
    assert not source.with_name("refused").exists() and not list(source.parent.glob("*.part"))
    return str(caught.value)


def weights(folder: Path) -> State:
    """Return the weights of a checkpoint folder by the original's names."""
    return original_tensors(checkpoint.load(folder))


def averaged(state: State) -> State:
    """Return the state of a checkpoint with its moving average as its weights."""
    kept = {name: tensor for name, tensor in state.items() if name not in LEFTOVERS}
    for name in kept:
        if name.startswith("model.diffusion_model."):
            kept[name] = state["model_ema." + name.removeprefix("model.").replace(".", "")]
    return kept | {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(0, dtype=torch.int)}


def assert_same(one: State, other: State) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
