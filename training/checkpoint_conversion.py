"""Convert a checkpoint to another layout."""

from dataclasses import replace
from pathlib import Path

from conf.options import UserError
from pipeline.output import names_in
from training.config import ConvertConfig, Layout
from training.model.checkpoints import checkpoint, model_parts
from training.model.checkpoints import ldm_export as export
from training.model.checkpoints.checkpoint_folder import is_own
from training.model.checkpoints.hub import local_path, pinned
from training.model.checkpoints.ldm_export import save_original, save_threestudio
from training.model.checkpoints.pretrained import Pretrained, complete, may_be_stable, read
from training.model.checkpoints.untrusted_file import require_finite
from training.model.hardware.device import torch_dtype


def convert_checkpoint(config: ConvertConfig, target: Path) -> int:
    """Read the source and write the target; return the exit code."""
    source = pinned(config.source)
    parts = read(source, config.ema)
    if config.pose_vector is None and parts.cc_projection and not parts.pose_vector and may_be_stable(source):
        raise UserError(
            f"source={source}: may be Stable-Zero123; set pose_vector=stable_zero123, or zero123 if it is not"
        )
    if config.image_encoder:
        folder = local_path(config.image_encoder, parts=())
        parts = replace(parts, image_encoder=model_parts.load_image_encoder(folder, untrusted=True))
    model = complete(parts, source, config.pose_vector)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch_dtype(config.dtype))
    require_finite(model, f"dtype={config.dtype.value}: the", "use dtype=float32 or bfloat16")
    if source != config.source:
        print(f"source: {source}")
    print(_describe_weights(config, parts))
    if target.suffix == ".ckpt":
        save_original(model, target)
        print(f"checkpoint: {target}, for the original's code")
    elif config.layout is Layout.threestudio:
        save_threestudio(model, target)
        print(f"model: {target}, for threestudio's Zero123Pipeline")
    else:
        checkpoint.save(model, target)
        use = "python -m inference.sample checkpoint={} image=… 'poses=[[20,45,0]]' output=outputs/views"
        if parts.cc_projection is None:
            use = "python -m training.finetune model.pretrained={} data.path=…"
        print(f"model: {target}; next: {use.format(target)}")
    return 0


def _describe_weights(config: ConvertConfig, parts: Pretrained) -> str:
    if parts.averaged is None:
        text = "weights: those of the folder"
    elif config.ema and not parts.averaged:
        text = "weights: the U-Net's last ones, because the source has no moving average"
    else:
        text = f"weights: the U-Net's {'moving average' if parts.averaged else 'last ones'}"
    if parts.cc_projection is None:
        text += "; without cc_projection, so only a start for training; new input channels are zero"
    return text


def check_target(config: ConvertConfig, source: Path, target: Path) -> None:
    """Check that the target is new, an empty folder, or an earlier output of this command.

    Raises:
        UserError: It is something else.
    """
    file = target.suffix == ".ckpt"
    if target.suffix in (".safetensors", ".bin", ".pt", ".pth"):
        raise UserError(f"target={target}: only .ckpt files are written; use that ending, or a folder")
    if file and config.layout is not Layout.community:
        raise UserError(f"layout={config.layout}: applies to folders only, target={target} is a file; use a folder")
    if target.resolve() in (source.resolve(), *source.resolve().parents):
        raise UserError(f"target={target}: would replace the source; use another")
    if not target.exists() or (not file and target.is_dir() and not names_in(str(target))):
        return
    own = export.is_own(target) if file else is_own(target) and not (target / "training.yaml").exists()
    if not own:
        raise UserError(f"target={target}: exists and is not a checkpoint of this command; use another, or delete it")
