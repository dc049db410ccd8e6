"""Export a model for other programs: the original's checkpoint file, or the folder that threestudio reads."""

import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm
from transformers import CLIPVisionModelWithProjection

from conf.options import UserError
from training.model.checkpoints import checkpoint, checkpoint_folder
from training.model.checkpoints import ldm_names as ldm
from training.model.checkpoints.ldm_import import POSE_NOTE
from training.model.checkpoints.untrusted_file import Weights
from training.model.zero123 import Zero123, noise_schedule

SCHEDULE = ("num_train_timesteps", "beta_schedule", "beta_start", "beta_end", "prediction_type")
INERT = ("sample_size", "force_upcast")  # without effect on images of a given size


def save_original(model: Zero123, path: Path) -> None:
    """Write the `.ckpt` that the original's code loads, to a temporary file that is renamed to `path`.

    Raises:
        UserError: The original's code would build another model from these weights.
    """
    tensors = original_tensors(model)
    aside = path.with_name(f".{path.name}.part")
    aside.parent.mkdir(parents=True, exist_ok=True)
    notes = {"global_step": 0, POSE_NOTE: str(model.cc_projection.pose_vector)}
    size = sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors.values()}.values())
    with (
        checkpoint_folder.discard_on_error(aside),
        aside.open("wb") as file,
        tqdm.wrapattr(file, "write", total=size, desc="writing", delay=2) as watched,
    ):
        torch.save({"state_dict": tensors, **notes}, watched)  # type: ignore[arg-type]
    os.replace(aside, path)


def is_own(path: Path) -> bool:
    """Return whether `save_original` wrote the file, which then records the pose vector."""
    try:
        with zipfile.ZipFile(path) as archive:
            pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            return any(POSE_NOTE.encode() in archive.read(name) for name in pickles)
    except (OSError, zipfile.BadZipFile):
        return False


def original_tensors(model: Zero123) -> dict[str, Tensor]:
    """Return the weights under the original's names. Raises UserError as `save_original`."""
    for key in SCHEDULE:
        value, supported = model.scheduler.config[key], noise_schedule().config[key]
        if value != supported:
            raise UserError(f"the original's layout cannot hold a model trained with {key}={value}, only {supported}")
    parts = (model.unet, model.vae, model.image_encoder, model.cc_projection)
    tensors: dict[str, Tensor] = {}
    for part in parts:
        _rename(part, tensors)
    for part in parts:
        _refuse_other_architecture(part, Weights(Path("the model"), tensors))
    # The original samples with the average, and would take random weights for it where there is none.
    tensors |= {ldm.ema_name(name): tensors[name] for name in tensors if name.startswith(ldm.UNET)}
    tensors["model_ema.decay"] = torch.tensor(0.9999)
    tensors["model_ema.num_updates"] = torch.tensor(0, dtype=torch.int)
    return tensors


def _rename(part: nn.Module, tensors: dict[str, Tensor]) -> None:
    state, thirds = part.state_dict(), dict[str, dict[int, Tensor]]()
    for key, (name, third) in ldm.ldm_names(part).items():
        if third is not None:
            thirds.setdefault(name, {})[third] = state[key]
        elif name.endswith("visual.proj"):
            tensors[name] = state[key].T.contiguous()
        elif ".mid.attn_1." in name and state[key].ndim == 2:
            tensors[name] = state[key][..., None, None]
        else:
            tensors[name] = state[key]
    tensors |= {name: torch.cat([pieces[i] for i in range(3)]) for name, pieces in thirds.items()}


def _refuse_other_architecture(part: nn.Module, weights: Weights) -> None:
    """Raise UserError for settings that neither names nor shapes determine and that readers assume, such as heads."""
    config: Any = getattr(part, "config", {})
    with torch.device("meta"):
        if isinstance(part, UNet2DConditionModel):
            read: Any = UNet2DConditionModel(**ldm.unet_config(weights.part(ldm.UNET))).config
        elif isinstance(part, AutoencoderKL):
            read = AutoencoderKL(**ldm.autoencoder_config(weights.part(ldm.VAE))).config
        elif isinstance(part, CLIPVisionModelWithProjection):
            read = ldm.image_encoder_config(weights.part(ldm.CLIP))
            keys = ("num_attention_heads", "image_size", "hidden_act", "layer_norm_eps")
            read, config = ({key: getattr(c, key) for key in keys} for c in (read, config))
        else:
            return
    for key, value in read.items():
        if not key.startswith("_") and key not in INERT and _normalize(config.get(key)) != _normalize(value):
            raise UserError(
                f"the original's layout cannot hold a {type(part).__name__} with {key}={config.get(key)}, only {value}"
            )


def _normalize(value: Any) -> Any:
    """Return a value as read from JSON: tuples are lists; false values are None."""
    return list(value) if isinstance(value, tuple) else value or None


def save_threestudio(model: Zero123, folder: Path) -> None:
    """Write the folder with `clip_camera_projection/` that threestudio's Zero123Pipeline loads."""
    if not isinstance(model.vae, AutoencoderKL):
        raise UserError("threestudio's layout has no place for a model without Stable Diffusion's autoencoder")

    def write(aside: Path) -> None:
        checkpoint.write(model, aside)
        shutil.rmtree(aside / "cc_projection")
        projection, part = model.cc_projection, aside / "clip_camera_projection"
        part.mkdir()
        config = {
            "_class_name": "CLIPCameraProjection",
            "_diffusers_version": diffusers.__version__,
            "additional_embeddings": projection.config["in_channel"] - projection.config["out_channel"],
            "embedding_dim": projection.config["out_channel"],
        }
        config |= {k: v for k, v in projection.config.items() if k == "pose_vector"}
        (part / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        weights = {f"proj.{name}": tensor.contiguous() for name, tensor in projection.projection.state_dict().items()}
        save_file(weights, part / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
        index = json.loads((aside / "model_index.json").read_text())
        del index["cc_projection"]
        index |= {"_class_name": "Zero123Pipeline", "clip_camera_projection": ["zero123", "CLIPCameraProjection"]}
        (aside / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")

    checkpoint_folder.replace_folder(folder, write)
