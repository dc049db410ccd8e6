"""Read pretrained models: released checkpoint files, and folders in one of diffusers' layouts.

105000.ckpt, zero123-xl.ckpt, stable_zero123.ckpt, sd-image-conditioned-v2.ckpt, or such a .safetensors
unet/ vae/ image_encoder/, with cc_projection/ (the community's), clip_camera_projection/ (threestudio's) or neither
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor, nn
from tqdm import tqdm
from transformers import CLIPVisionModelWithProjection

from conf.options import UserError
from training.model import checkpoint
from training.model import ldm_names as ldm
from training.model.autoencoder import Autoencoder
from training.model.conditioning import POSE_DIM, CCProjection
from training.model.config import PoseVector
from training.model.hub import FILES, hub_uri, local_path
from training.model.mistaken import refuse_mistaken, refuse_mistaken_names
from training.model.untrusted_file import Weights, best_weights, first_line, read_weights, validate_weight
from training.model.zero123 import Zero123, noise_schedule

UNET_INPUT = "input_blocks.0.0.weight"
POSE_NOTE = "pose_vector"  # where a file in the original's layout that we wrote says which one it was trained with


@dataclass(frozen=True)
class Pretrained:
    """Parts of a source, in float32."""

    unet: UNet2DConditionModel
    vae: Autoencoder | None = None
    image_encoder: CLIPVisionModelWithProjection | None = None
    cc_projection: CCProjection | None = None
    scheduler: DDIMScheduler | None = None
    averaged: bool | None = None  # whether the U-Net's weights are a moving average, where the source tells
    pose_vector: PoseVector | None = None  # which one the source says it was trained with


class Frozen(NamedTuple):
    """Parts of a source that are not trained."""

    vae: Autoencoder | None
    image_encoder: CLIPVisionModelWithProjection | None


def read(source: str | Path, ema: bool = True) -> Pretrained:
    """Read a local source or one on the Hugging Face hub.

    Args:
        source: Path, or model on the hub.
        ema: Whether to read the moving average of the U-Net's weights from a file that has both.

    Raises:
        UserError: there is no such source, or it holds something else, or more than weights.
    """
    source = local_path(source)
    if file := _single_file(source):
        return _from_file(read_weights(file), ema)
    if not (source / "unet").is_dir():
        raise _missing(source, "unet")
    return _from_folder(source)


def load_posed(source: str | Path) -> Zero123:
    """Read a complete model that was trained with poses, from any source.

    Raises:
        UserError: As for `read`; or it has no `cc_projection`, or its pose vector is unknown.
    """
    local = local_path(source)
    if not _single_file(local) and not (local / "clip_camera_projection").is_dir():
        model = checkpoint.load(local, untrusted=True)
        said = model.cc_projection.config.get("pose_vector")
    else:
        parts = read(local)
        if parts.cc_projection is None:
            raise UserError(f"{source} has never seen a pose: a start for training.finetune, no model of new views")
        model, said = complete(parts, source), parts.pose_vector
    if said is None and may_be_stable(source):
        target = f"outputs/{PurePosixPath(source).stem}"
        raise UserError(
            f"{source} may be Stable-Zero123; say so, or that it is not, with "
            f"python -m training.convert source={source} target={target} pose_vector=stable_zero123"
        )
    return model


def may_be_stable(source: str | Path) -> bool:
    """Return whether a source is named like Stable-Zero123, whose file does not record its pose vector."""
    name = str(source).lower()
    return ("stable" in PurePosixPath(name).stem and (Path(source).is_file() or name.endswith(FILES))) or (
        "stable" in name and "zero" in name and hub_uri(source) is not None
    )


def read_frozen(source: str | Path) -> Frozen:
    """Read the frozen parts, without the U-Net if they are in folders of their own.

    Raises:
        UserError: as `read`.
    """
    source = local_path(source, ("vae", "image_encoder"))
    vae, image_encoder = source / "vae", source / "image_encoder"
    if vae.is_dir() or image_encoder.is_dir():
        return Frozen(
            checkpoint.load_autoencoder(vae, untrusted=True) if vae.is_dir() else None,
            checkpoint.load_image_encoder(image_encoder, untrusted=True) if image_encoder.is_dir() else None,
        )
    if _single_file(source):
        parts = read(source)
        return Frozen(parts.vae, parts.image_encoder)
    raise _missing(source, "vae")


def _single_file(source: Path) -> Path | None:
    """Return the file of a source in the original's layout, or the index of its shards; None for diffusers' folders.

    Raises:
        UserError: the source is known to be no model.
    """
    if (source / "unet").is_dir():
        return None
    refuse_mistaken(source)
    if source.is_dir() and (name := best_weights({path.name for path in source.iterdir() if path.is_file()})):
        return source / name
    return source if source.is_file() else None


def _missing(source: Path, part: str) -> UserError:
    files = sorted(path.name for path in source.glob("*") if path.suffix in (".ckpt", ".safetensors"))
    if files:
        return UserError(f"{source} has no folder {part}; name one of its files, as {source / files[0]}")
    return UserError(
        f"there is no folder {source / part} and no file {source}; "
        "name a .ckpt, a .safetensors or a folder in diffusers' layout"
    )


def complete(parts: Pretrained, source: str | Path, pose_vector: PoseVector | None = None) -> Zero123:
    """Return a model of all parts.

    Without a `cc_projection` it starts as in training: new input channels zero, `cc_projection` the identity.

    Args:
        parts: Parts of the source.
        source: Name of the source for errors.
        pose_vector: Definition of the pose vector; None for that of the source.

    Raises:
        UserError: Autoencoder or image encoder are missing, or the parts do not fit each other.
    """
    for name in ("vae", "image_encoder"):
        if getattr(parts, name) is None:
            raise UserError(f"{source} has no {name}" + "; add image_encoder=…" * (name == "image_encoder"))
    assert parts.vae is not None and parts.image_encoder is not None
    unet, embedding = parts.unet, parts.image_encoder.config.projection_dim
    projection = parts.cc_projection or CCProjection(embedding + POSE_DIM, unet.config["cross_attention_dim"])
    if unet.config["in_channels"] == unet.config["out_channels"]:
        unet = extend_input(unet, 2 * unet.config["out_channels"])
        unet.register_to_config(sample_size=32)  # Stable Diffusion's own is for 512²
    if pose_vector is not None:
        weights = projection.state_dict()
        projection = CCProjection(projection.config["in_channel"], projection.config["out_channel"], pose_vector)
        projection.load_state_dict(weights)
    model = Zero123(unet, parts.vae, parts.image_encoder, projection, parts.scheduler or noise_schedule())
    checkpoint.check_fit(model, source)
    return model.eval()


def extend_input(unet: UNet2DConditionModel, channels: int) -> UNet2DConditionModel:
    """Return the U-Net with `channels` input channels, the weights of the new ones zero."""
    state = unet.state_dict()
    narrow = state["conv_in.weight"]
    state["conv_in.weight"] = narrow.new_zeros(narrow.shape[0], channels, *narrow.shape[2:])
    state["conv_in.weight"][:, : narrow.shape[1]] = narrow
    with torch.device("meta"):
        wide = UNet2DConditionModel.from_config({**unet.config, "in_channels": channels})
    wide.load_state_dict(state, assign=True)
    return wide


# ---- the original's layout


def _from_file(weights: Weights, ema: bool) -> Pretrained:
    refuse_mistaken_names(weights)
    weights = ldm.rename_image_encoder(weights)
    tensors, pose_vector = weights.tensors, None
    ema = ema and ldm.ema_name(ldm.UNET + UNET_INPUT) in tensors
    image_encoder = projection = None
    # On meta, where a few names that claim a huge model take no memory.
    with _shape_errors(weights), torch.device("meta"):
        unet = UNet2DConditionModel(**ldm.unet_config(weights.part(ldm.UNET)))
        vae = AutoencoderKL(**ldm.autoencoder_config(weights.part(ldm.VAE)))
        if any(name.startswith(ldm.CLIP) for name in tensors):
            config = ldm.image_encoder_config(weights.part(ldm.CLIP))
            image_encoder = CLIPVisionModelWithProjection(config)
        if ldm.PROJECTION + "weight" in tensors:
            out_channel, in_channel = weights.shape(ldm.PROJECTION + "weight", 2)
            if POSE_NOTE in weights.notes:
                pose_vector = PoseVector(weights.notes[POSE_NOTE])
            projection = CCProjection(in_channel, out_channel, pose_vector or PoseVector.zero123)
    parts = [part for part in (unet, vae, image_encoder, projection) if part is not None]
    _refuse_unknown(weights, parts)
    for part in parts:
        _fill(part, weights, ema and part is unet)
    return Pretrained(unet, vae, image_encoder, projection, noise_schedule(), ema, pose_vector)


@contextmanager
def _shape_errors(weights: Weights) -> Iterator[None]:
    """Convert exceptions over shapes that belong to no model to UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{weights.path}: no model has the shapes of its tensors: {first_line(error)}") from error


def _refuse_unknown(weights: Weights, parts: list[nn.Module]) -> None:
    known = {name for part in parts for name, _ in ldm.ldm_names(part).values()}
    known |= {ldm.ema_name(name) for name in known if name.startswith(ldm.UNET)}
    unknown = [name for name in weights.tensors if name not in known and not ldm.SKIPPED.fullmatch(name)]
    if unknown:
        raise UserError(
            f"{weights.path} is no Zero-1-to-3 and no image-conditioned Stable Diffusion v1: its tensor {unknown[0]} "
            f"is unknown here, and {len(unknown) - 1} others"
        )


def _fill(part: Any, weights: Weights, ema: bool) -> None:
    state, empty = {}, part.state_dict()
    for key, (name, third) in ldm.ldm_names(part).items():
        name = ldm.ema_name(name) if ema else name
        tensor = weights[name] if third is None else weights[name].chunk(3)[third]
        state[key] = validate_weight(
            _match_layout(tensor, empty[key], name), empty[key], f"{weights.path}: its tensor {name}"
        )
    checkpoint.fill(part, state, weights.path)


def _match_layout(tensor: Tensor, like: Tensor, name: str) -> Tensor:
    """Return a tensor in diffusers' layout: CLIP's projection transposed, 1 × 1 convolutions of the VAE as matrices."""
    if name.endswith("visual.proj"):
        return tensor.T
    if tensor.ndim == 4 and like.ndim == 2 and tensor.shape[2:] == (1, 1):
        return tensor[..., 0, 0]
    return tensor


# ---- diffusers' layouts


def _from_folder(folder: Path) -> Pretrained:
    loaders: dict[str, Callable[..., Any]] = {
        "unet": checkpoint.load_unet,
        "vae": checkpoint.load_autoencoder,
        "image_encoder": checkpoint.load_image_encoder,
    }
    there = [name for name in loaders if (folder / name).is_dir()]
    watched = tqdm(there, desc=f"reading {folder.name}", unit=" parts", delay=2, leave=False)
    parts = {name: loaders[name](folder / name, untrusted=True) for name in watched}
    projection = _projection(folder)
    recorded = projection.config.get("pose_vector") if projection else None
    return Pretrained(
        **parts,
        cc_projection=projection,
        scheduler=_scheduler(folder / "scheduler"),
        pose_vector=PoseVector(recorded) if recorded else None,
    )


def _projection(folder: Path) -> CCProjection | None:
    if (folder / "cc_projection").is_dir():
        return checkpoint.load_projection(folder / "cc_projection", untrusted=True)
    threestudios = folder / "clip_camera_projection"
    if not threestudios.is_dir():
        return None
    name = best_weights({path.name for path in threestudios.iterdir()})
    if name is None:
        raise UserError(f"{threestudios} is incomplete: its weights are missing")
    weights = read_weights(threestudios / name)
    pose_vector = checkpoint.read_config(threestudios).get("pose_vector", PoseVector.zero123)
    with _shape_errors(weights):
        out_channel, in_channel = weights.shape("proj.weight", 2)
        projection = CCProjection(in_channel, out_channel, str(pose_vector))
        state = projection.projection.state_dict()
        what = f"{weights.path}: its tensor proj"
        projection.projection.load_state_dict(
            {name: validate_weight(weights[f"proj.{name}"], like, f"{what}.{name}") for name, like in state.items()}
        )
    return projection


def _scheduler(folder: Path) -> DDIMScheduler | None:
    """Read a DDIM scheduler; None for other classes, as in plain Stable Diffusion, whose schedule is the default."""
    if not folder.is_dir():
        return None
    config = checkpoint.read_config(folder, "scheduler_config.json")
    return checkpoint.load_scheduler(folder) if config.get("_class_name") == "DDIMScheduler" else None
