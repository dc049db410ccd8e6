"""Read pretrained models: released checkpoint files, and folders in one of diffusers' layouts.

105000.ckpt, zero123-xl.ckpt, stable_zero123.ckpt, sd-image-conditioned-v2.ckpt, or such a .safetensors
unet/ vae/ image_encoder/, with cc_projection/ (the community's), clip_camera_projection/ (threestudio's) or neither
"""

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from tqdm import tqdm
from transformers import CLIPVisionModelWithProjection

from conf.options import UserError
from training.model.autoencoder import Autoencoder
from training.model.checkpoints import checkpoint, model_parts
from training.model.checkpoints.checksums import require_intact
from training.model.checkpoints.hub import FILES, hub_uri, local_path
from training.model.checkpoints.ldm_import import parts_of_file
from training.model.checkpoints.mistaken import refuse_mistaken
from training.model.checkpoints.model_parts import Pretrained
from training.model.checkpoints.untrusted_file import best_weights, read_weights, shape_errors, validate_weight
from training.model.conditioning import POSE_DIM, CCProjection
from training.model.config import PoseVector
from training.model.zero123 import Zero123, noise_schedule


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
        UserError: There is no such source, it is damaged or holds another model, or its files hold more than weights.
    """
    source = local_path(source)
    if file := _single_file(source):
        return parts_of_file(read_weights(file), ema)
    if not (source / "unet").is_dir():
        raise _missing(source, "unet")
    require_intact(source)
    return _from_folder(source)


def load_posed(source: str | Path) -> Zero123:
    """Read a complete model that was trained with poses, from any source.

    Raises:
        UserError: As for `read`; or it has no `cc_projection`, or its pose vector is unknown.
    """
    local = local_path(source)
    if not _single_file(local) and not (local / "clip_camera_projection").is_dir():
        model = checkpoint.load(local, untrusted=True)
        recorded = model.cc_projection.config.get("pose_vector")
    else:
        parts = read(local)
        if parts.cc_projection is None:
            raise UserError(
                f"{source} was not trained with poses; train it first, with training.finetune model.pretrained={source}"
            )
        model, recorded = complete(parts, source), parts.pose_vector
    if recorded is None and may_be_stable(source):
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
        UserError: As for `read`.
    """
    source = local_path(source, ("vae", "image_encoder"))
    vae, image_encoder = source / "vae", source / "image_encoder"
    if vae.is_dir() or image_encoder.is_dir():
        return Frozen(
            model_parts.load_autoencoder(vae, untrusted=True) if vae.is_dir() else None,
            model_parts.load_image_encoder(image_encoder, untrusted=True) if image_encoder.is_dir() else None,
        )
    if _single_file(source):
        parts = read(source)
        return Frozen(parts.vae, parts.image_encoder)
    raise _missing(source, "vae")


def _single_file(source: Path) -> Path | None:
    """Return the file of a source in the original's layout, or the index of its shards; None for diffusers' folders.

    Raises:
        UserError: The source is known not to be a model.
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


def _from_folder(folder: Path) -> Pretrained:
    loaders: dict[str, Callable[..., Any]] = {
        "unet": model_parts.load_unet,
        "vae": model_parts.load_autoencoder,
        "image_encoder": model_parts.load_image_encoder,
    }
    existing = [name for name in loaders if (folder / name).is_dir()]
    watched = tqdm(existing, desc=f"reading {folder.name}", unit=" parts", delay=2, leave=False)
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
        return model_parts.load_projection(folder / "cc_projection", untrusted=True)
    threestudio = folder / "clip_camera_projection"
    if not threestudio.is_dir():
        return None
    name = best_weights({path.name for path in threestudio.iterdir()})
    if name is None:
        raise UserError(f"{threestudio} is incomplete: its weights are missing")
    weights = read_weights(threestudio / name)
    pose_vector = model_parts.read_config(threestudio).get("pose_vector", PoseVector.zero123)
    with shape_errors(weights):
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
    config = model_parts.read_config(folder, "scheduler_config.json")
    return model_parts.load_scheduler(folder) if config.get("_class_name") == "DDIMScheduler" else None
