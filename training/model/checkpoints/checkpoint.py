"""Checkpoint folders: a diffusers pipeline layout, safetensors only, nothing in it executed.

`unet/ vae/ image_encoder/ cc_projection/ scheduler/ feature_extractor/ model_index.json`; full-size models
are what the community pipeline Zero1to3StableDiffusionPipeline reads.
"""

import json
from pathlib import Path
from typing import Any

import diffusers
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from tqdm import tqdm
from transformers import CLIPImageProcessorPil
from transformers.utils.logging import disable_progress_bar

from conf.options import UserError
from training.model.checkpoints.checkpoint_folder import PARTS, PROJECT, WRITTEN_BY, replace_folder
from training.model.checkpoints.checksums import require_intact
from training.model.checkpoints.model_parts import (
    load_autoencoder,
    load_image_encoder,
    load_projection,
    load_scheduler,
    load_unet,
    read_config,
)
from training.model.conditioning import CLIP_MEAN, CLIP_STD, POSE_DIM
from training.model.context import MODULATION
from training.model.zero123 import Zero123

disable_progress_bar()  # its bars would break other lines of output

PIPELINE = "Zero1to3StableDiffusionPipeline"
# Settings of U-Nets with conditioning that this model does not have.
UNSUPPORTED_CONDITIONS = (
    "num_class_embeds",
    "addition_embed_type",
    "encoder_hid_dim",
    "only_cross_attention",
)


def save(model: Zero123, folder: str | Path) -> None:
    """Write a model to a temporary folder and rename it to `folder`; an earlier checkpoint there is replaced."""
    replace_folder(Path(folder), lambda aside: write(model, aside))


def write(model: Zero123, folder: Path) -> None:
    """Write the parts of a model and `model_index.json` to a folder."""
    for part in tqdm(PARTS, desc=f"writing {folder.stem}", unit=" parts", delay=2, leave=False):
        getattr(model, part).save_pretrained(folder / part)
    feature_extractor(model.image_encoder.config.image_size).save_pretrained(folder / "feature_extractor")
    (folder / "model_index.json").write_text(json.dumps(_index(model), indent=2) + "\n")


def load(folder: str | Path, untrusted: bool = False) -> Zero123:
    """Read a checkpoint folder, in float32.

    Args:
        folder: Folder in diffusers' layout.
        untrusted: Whether another program may have written it: pickles of weights are then read too, not executed.

    Raises:
        UserError: The folder is missing, incomplete or damaged, or holds another model.
    """
    folder = Path(folder)
    _check_index(folder)
    require_intact(folder)
    model = Zero123(
        load_unet(folder / "unet", untrusted),
        load_autoencoder(folder / "vae", untrusted),
        load_image_encoder(folder / "image_encoder", untrusted),
        load_projection(folder / "cc_projection", untrusted),
        load_scheduler(folder / "scheduler"),
    )
    check_fit(model, folder)
    return model.eval()


def feature_extractor(resolution: int) -> CLIPImageProcessorPil:
    """Return the preprocessing of CLIP, written for other tools; this project uses `conditioning.clip_input`."""
    size = {"height": resolution, "width": resolution}
    return CLIPImageProcessorPil(
        size={"shortest_edge": resolution},
        crop_size=size,
        image_mean=list(CLIP_MEAN),
        image_std=list(CLIP_STD),
    )


def _index(model: Zero123) -> dict[str, Any]:
    vae = "diffusers" if isinstance(model.vae, AutoencoderKL) else "training.model.autoencoder"
    return {
        "_class_name": PIPELINE,
        "_diffusers_version": diffusers.__version__,
        WRITTEN_BY: PROJECT,
        "cc_projection": ["pipeline_zero1to3", "CCProjection"],
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": [vae, type(model.vae).__name__],
    }


def _check_index(folder: Path) -> None:
    """Raise UserError unless model_index.json names the expected classes, which are compared and not imported."""
    index = read_config(folder, "model_index.json")
    known = {
        "cc_projection": {"CCProjection"},
        "image_encoder": {"CLIPVisionModelWithProjection"},
        "unet": {"UNet2DConditionModel"},
        "vae": {"AutoencoderKL", "PatchAutoencoder"},
    }
    for part, classes in known.items():
        entry = index.get(part)
        if not isinstance(entry, list) or entry[-1] not in classes:
            found = f"its {part} is {entry[-1]}" if isinstance(entry, list) and entry else f"it has no {part}"
            raise UserError(f"{folder} is no Zero-1-to-3 checkpoint: {found}")


def check_fit(model: Zero123, folder: str | Path) -> None:
    """Raise UserError if the parts of a model do not fit each other."""
    unet, projection = model.unet.config, model.cc_projection.config
    latent, embedding = unet["out_channels"], model.image_encoder.config.projection_dim
    if unet["in_channels"] != 2 * latent:
        raise UserError(
            f"{folder} is no Zero-1-to-3 checkpoint: its unet has {unet['in_channels']} input channels, "
            f"not {2 * latent}"
        )
    if unet["out_channels"] != (model.vae.config.get("latent_channels") or model.vae.latent_channels):
        raise UserError(f"{folder} is inconsistent: its unet has {latent} channels, its vae another number")
    if unsupported := [name for name in UNSUPPORTED_CONDITIONS if unet.get(name)]:
        name = unsupported[0]
        raise UserError(f"{folder} is no Zero-1-to-3 checkpoint: its unet has {name}={unet[name]}")
    if (kind := unet.get("class_embed_type")) not in (None, MODULATION["class_embed_type"]):
        raise UserError(f"{folder} is no Zero-1-to-3 checkpoint: its unet has class_embed_type={kind}")
    if (projection["in_channel"], projection["out_channel"]) != (
        embedding + POSE_DIM,
        unet["cross_attention_dim"],
    ):
        raise UserError(f"{folder} is inconsistent: its cc_projection fits neither its image_encoder nor its unet")
