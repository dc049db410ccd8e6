"""Checkpoint folders: a diffusers pipeline layout, safetensors only, nothing in it executed.

`unet/ vae/ image_encoder/ cc_projection/ scheduler/ feature_extractor/ model_index.json`; full-size models
are what the community pipeline Zero1to3StableDiffusionPipeline reads.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from safetensors import SafetensorError
from torch import Tensor
from tqdm import tqdm
from transformers import CLIPImageProcessorPil, CLIPVisionModelWithProjection
from transformers.utils.logging import disable_progress_bar

from conf.options import UserError
from training.model.autoencoder import Autoencoder, PatchAutoencoder
from training.model.conditioning import CLIP_MEAN, CLIP_STD, POSE_DIM, CCProjection
from training.model.config import Prediction
from training.model.context import MODULATION
from training.model.untrusted_file import best_weights, first_line, read_weights, validate_weight
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
PARTS = ("unet", "vae", "image_encoder", "cc_projection", "scheduler")
ENTRIES = {*PARTS, "clip_camera_projection", "feature_extractor", "model_index.json", "training.yaml"}
WRITTEN_BY, PROJECT = (
    "_written_by",
    "Zero-1-to-3",
)  # in model_index.json, where diffusers ignores names with an underscore


def save(model: Zero123, folder: str | Path) -> None:
    """Write a model to a temporary folder and rename it to `folder`; an earlier checkpoint there is replaced."""
    replace_folder(Path(folder), lambda aside: write(model, aside))


def replace_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Write a temporary folder beside `folder`, and rename it once it is complete.

    An earlier checkpoint is deleted; other files in its folder stay.

    Args:
        folder: Path of the checkpoint.
        write: Writes the checkpoint to the folder it is given.
    """
    aside, old = (folder.with_name(f".{folder.name}.{suffix}") for suffix in ("part", "old"))
    if old.exists():  # a process was killed between the two renames below, or after them
        _discard(old, folder) if folder.exists() else old.rename(folder)
    shutil.rmtree(aside, ignore_errors=True)
    with discard_on_error(aside):
        write(aside)
    if folder.exists():
        folder.rename(old)
    aside.rename(folder)
    if old.exists():
        _discard(old, folder)


def _discard(old: Path, folder: Path) -> None:
    """Delete the earlier checkpoint `old`, after moving other files in it to `folder`."""
    for path in old.iterdir():
        if path.name not in ENTRIES:
            path.rename(folder / path.name)
    shutil.rmtree(old)


def is_own(folder: Path) -> bool:
    """Return whether this project wrote the checkpoint in `folder`, as its model_index.json says."""
    try:
        index = json.loads((folder / "model_index.json").read_text())
    except (OSError, ValueError, RecursionError):
        return False
    if not isinstance(index, dict):
        return False
    if WRITTEN_BY in index:
        return index[WRITTEN_BY] == PROJECT
    # Earlier versions of this project wrote no name, but this version of diffusers and these entries only.
    by_us = str(index.get("_diffusers_version")).startswith("0.42.")
    return by_us and "requires_safety_checker" in index and {path.name for path in folder.iterdir()} <= ENTRIES


@contextmanager
def discard_on_error(aside: Path) -> Iterator[None]:
    """Remove a file or folder if writing it fails.

    Raises:
        UserError: torch.save or safetensors cannot write, usually because the disk is full.
    """
    try:
        yield
    except BaseException as error:
        if aside.is_dir():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.unlink(missing_ok=True)
        if isinstance(error, SafetensorError) or "inline_container" in str(error):
            raise UserError(f"{aside.parent} cannot be written, its disk may be full: {first_line(error)}") from error
        raise


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
        UserError: The folder is missing, incomplete, or holds another model.
    """
    folder = Path(folder)
    _check_index(folder)
    model = Zero123(
        load_unet(folder / "unet", untrusted),
        load_autoencoder(folder / "vae", untrusted),
        load_image_encoder(folder / "image_encoder", untrusted),
        load_projection(folder / "cc_projection", untrusted),
        load_scheduler(folder / "scheduler"),
    )
    check_fit(model, folder)
    return model.eval()


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
        scheduler = DDIMScheduler.from_config(config)
        Prediction(scheduler.config["prediction_type"])
    except Exception as error:  # damaged configurations raise many types
        raise UserError(f"{folder} cannot be read as a DDIMScheduler: {first_line(error)}") from error
    return scheduler


def feature_extractor(resolution: int) -> CLIPImageProcessorPil:
    """Return the preprocessing of CLIP, written for other tools; this project uses `conditioning.clip_input`."""
    size = {"height": resolution, "width": resolution}
    return CLIPImageProcessorPil(
        size={"shortest_edge": resolution},
        crop_size=size,
        image_mean=list(CLIP_MEAN),
        image_std=list(CLIP_STD),
    )


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
        # On the meta device a configuration of a huge model takes no memory.
        with torch.device("meta"):
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
    if asked := [name for name in UNSUPPORTED_CONDITIONS if unet.get(name)]:
        raise UserError(f"{folder} is no Zero-1-to-3 checkpoint: its unet has {asked[0]}={unet[asked[0]]}")
    if (kind := unet.get("class_embed_type")) not in (None, MODULATION["class_embed_type"]):
        raise UserError(f"{folder} is no Zero-1-to-3 checkpoint: its unet has class_embed_type={kind}")
    if (projection["in_channel"], projection["out_channel"]) != (
        embedding + POSE_DIM,
        unet["cross_attention_dim"],
    ):
        raise UserError(f"{folder} is inconsistent: its cc_projection fits neither its image_encoder nor its unet")
