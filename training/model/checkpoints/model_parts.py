"""Read the parts of a model from their folders in diffusers' layout, executing nothing."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from transformers import CLIPVisionModelWithProjection

from conf.options import UserError, first_line
from training.model.autoencoder import Autoencoder, PatchAutoencoder
from training.model.checkpoints.checkpoint_folder import PARTS
from training.model.checkpoints.untrusted_file import best_weights, read_weights, validate_weight
from training.model.conditioning import CCProjection
from training.model.config import PoseVector, Prediction

TIMESTEPS = range(500, 100_001)  # of a noise schedule: as many as a sampler may take steps, and few enough for memory
PARAMETERS_PER_TENSOR = 2  # of a configuration, per tensor of its file; a valid one has at most 1


@dataclass(frozen=True)
class Pretrained:
    """Parts of a pretrained source, in float32; None where the source lacks one.

    Attributes:
        unet: The U-Net.
        vae: The autoencoder.
        image_encoder: The CLIP vision model.
        cc_projection: The projection of image embedding and pose vector.
        scheduler: The noise schedule.
        averaged: Whether the weights of the U-Net are a moving average; None if the source does not say.
        pose_vector: The pose vector of the training; None if the source does not say.
    """

    unet: UNet2DConditionModel
    vae: Autoencoder | None = None
    image_encoder: CLIPVisionModelWithProjection | None = None
    cc_projection: CCProjection | None = None
    scheduler: DDIMScheduler | None = None
    averaged: bool | None = None
    pose_vector: PoseVector | None = None


def load_unet(folder: Path, untrusted: bool = False) -> UNet2DConditionModel:
    """Read the U-Net from its folder. Raises UserError as `load`."""
    return _load(UNet2DConditionModel, folder, untrusted)


def load_autoencoder(folder: Path, untrusted: bool = False) -> Autoencoder:
    """Read the autoencoder from its folder. Raises UserError as `load`."""
    return _load(PatchAutoencoder if "patch" in read_config(folder) else AutoencoderKL, folder, untrusted)


def load_image_encoder(folder: Path, untrusted: bool = False) -> CLIPVisionModelWithProjection:
    """Read a CLIP vision model with projection from its folder. Raises UserError as `load`."""
    config = read_config(folder)
    if config.get("model_type") not in ("clip_vision_model", "clip"):
        raise UserError(f"{folder} holds a {config.get('model_type')}, not a CLIP vision model")
    return _load(CLIPVisionModelWithProjection, folder, untrusted)


def load_projection(folder: Path, untrusted: bool = False) -> CCProjection:
    """Read `cc_projection` from its folder. Raises UserError as `load`."""
    return _load(CCProjection, folder, untrusted)


def load_scheduler(folder: Path) -> DDIMScheduler:
    """Read the scheduler from its folder. Raises UserError if it is not a DDIM scheduler."""
    config = read_config(folder, "scheduler_config.json")
    try:
        if (timesteps := config.get("num_train_timesteps", 1000)) not in TIMESTEPS:
            raise ValueError(
                f"num_train_timesteps={timesteps} is not a whole number from {TIMESTEPS[0]} to {TIMESTEPS[-1]}"
            )
        scheduler = DDIMScheduler.from_config(config)
        Prediction(scheduler.config["prediction_type"])
    except Exception as error:  # damaged configurations raise many types
        raise UserError(f"{folder} cannot be read as a DDIMScheduler: {first_line(error)}") from error
    return scheduler


def _load(part: Any, folder: Path, untrusted: bool = False) -> Any:
    """Read one part from its folder, in float32.

    Raises:
        UserError: The configuration is invalid, or weights are missing, of another shape or not finite.
    """
    read_config(folder)
    name = best_weights({path.name for path in folder.iterdir() if path.is_file()}, pickles=untrusted)
    if name is None:
        raise UserError(f"{folder} is incomplete: its weights are missing (a file in safetensors)")
    weights = read_weights(folder / name)
    try:
        # On the meta device wide layers take no memory; their number is limited.
        with torch.device("meta"), _limit_parameters(PARAMETERS_PER_TENSOR * len(weights.tensors)):
            model = _from_config(part, folder)
        state: Any = dict(weights.tensors)
        if isinstance(model, ModelMixin):
            model._fix_state_dict_keys_on_load(state)  # names of the autoencoder's attention in 2022
    except Exception as error:  # damaged configurations raise many types
        raise UserError(f"{folder} cannot be read as {part.__name__}: {first_line(error)}") from error
    empty = model.state_dict()
    if missing := sorted(empty.keys() - state.keys()):
        raise UserError(f"{folder} is incomplete: {len(missing)} weights are missing, {missing[0]} among them")
    fill(
        model,
        {key: validate_weight(state[key], like, f"{folder}: its tensor {key}") for key, like in empty.items()},
        folder,
    )
    return model


@contextmanager
def _limit_parameters(limit: int) -> Iterator[None]:
    """Raise `ValueError` once models that this thread builds in the block have more than `limit` parameters."""
    thread, count = threading.get_ident(), 0

    def add(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal count
        count += threading.get_ident() == thread
        if count > limit:
            raise ValueError("its config.json describes more layers than its weights have")

    hook = register_module_parameter_registration_hook(add)
    try:
        yield
    finally:
        hook.remove()


def _from_config(part: Any, folder: Path) -> Any:
    if issubclass(part, ModelMixin):
        return part.from_config(part.load_config(folder, local_files_only=True))
    return part(part.config_class.from_pretrained(folder, local_files_only=True))


def fill(model: Any, state: Mapping[str, Tensor], source: str | Path) -> None:
    """Assign weights to a model on the meta device.

    Raises:
        UserError: The model has buffers that no checkpoint stores, other than the position indices of CLIP.
    """
    model.load_state_dict(state, assign=True)
    if isinstance(model, CLIPVisionModelWithProjection):
        embeddings: Any = model.vision_model.embeddings
        embeddings.position_ids = torch.arange(embeddings.num_positions)[None]
    if any(buffer.is_meta for buffer in model.buffers()):
        raise UserError(f"{source} holds a {type(model).__name__} of a kind that is not supported here")


def read_config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """Return the JSON object in a file of a checkpoint folder. Raises UserError if it is missing or damaged."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; name a checkpoint folder with {', '.join(PARTS)}")
    try:
        config = json.loads((folder / name).read_text())
    except FileNotFoundError:
        raise UserError(f"{folder} is incomplete: {name} is missing") from None
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{folder / name} is damaged: {error}") from error
    if not isinstance(config, dict):
        raise UserError(f"{folder / name} is damaged: it holds a {type(config).__name__}")
    return config
