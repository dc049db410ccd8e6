"""Recognise sources that are no model, and say how to proceed: runs, training states, adapters, single parts."""

from pathlib import Path

from conf.options import UserError
from training.model.untrusted_file import Weights

ADAPTERS = ("adapter_config.json", "adapter_model.safetensors", "pytorch_lora_weights.safetensors")
DEEPSPEED = ("*_model_states.pt", "*_optim_states.pt", "zero_to_fp32.py")
DISTRIBUTED = (".metadata", "*.distcp")  # torch.distributed.checkpoint, as FSDP under Lightning writes it
TORCH_SAVE_NAMES = ("_model_states.pt", "_optim_states.pt")


def refuse_mistaken(source: Path) -> None:
    """Name a source that is known to be no model.

    Raises:
        UserError: the source is a run, a training state, an adapter or a part of a model.
    """
    if not source.exists():
        return
    if run := _run_of(source):
        found = next((run / name for name in ("model", "best") if (run / name / "unet").is_dir()), None)
        kind = "a run of training.finetune" if run == source else f"a training state of the run {run}"
        advice = f"give its model, {found}" if found else "it has no model yet: continue it until it writes one"
        raise UserError(f"{source} is {kind}, not a checkpoint to draw or start from; {advice}")
    if source.name.endswith(TORCH_SAVE_NAMES) or _has(source, DEEPSPEED) or _has(source, ("*/*_states.pt",)):
        raise UserError(
            f"{source} is a training state of DeepSpeed, not a model; give <run>/model of the run that wrote it, or "
            "the file that the zero_to_fp32.py beside it makes of it"
        )
    if _has(source, DISTRIBUTED):
        raise UserError(
            f"{source} is a distributed training state of Lightning, not a model; give <run>/model of the run that "
            "wrote it, or consolidate it with python -m lightning.pytorch.utilities.consolidate_checkpoint"
        )
    if _has(source, ADAPTERS):
        raise UserError(
            f"{source} holds an adapter (LoRA), not a model; merge it into its base model first and give the result"
        )
    if source.is_dir() and source.name in ("unet", "vae", "image_encoder", "cc_projection"):
        raise UserError(f"{source} is one part of a model; give the folder around it, {source.parent}")


def refuse_mistaken_names(weights: Weights) -> None:
    """Name a file whose tensors show that it is no model in the original's layout.

    Raises:
        UserError: the file holds a training state of ours, or one part in diffusers' layout.
    """
    if any(name.startswith("model.unet.") for name in weights.tensors):
        raise UserError(f"{weights.path} is a training state of training.finetune; give <run>/model of its run")
    if "conv_in.weight" in weights and any(name.startswith("down_blocks.") for name in weights.tensors):
        raise UserError(
            f"{weights.path} is the U-Net alone, in diffusers' layout; give the folder that holds unet/, vae/ and "
            "image_encoder/"
        )


def _run_of(source: Path) -> Path | None:
    """Return the run that a folder is, or that a training state belongs to."""
    candidates = [source] if source.is_dir() else []
    candidates += [folder.parent for folder in (source, *source.absolute().parents) if folder.name == "checkpoints"]
    for run in candidates:
        if (run / "training.yaml").is_file() and not (run / "model_index.json").exists():
            return run
    return None


def _has(folder: Path, patterns: tuple[str, ...]) -> bool:
    return folder.is_dir() and any(True for pattern in patterns for _ in folder.glob(pattern))
