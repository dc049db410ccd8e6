"""Recognise sources that are not a model (runs, training states, adapters, single parts) and name the remedy."""

from pathlib import Path

from conf.options import UserError
from training.model.checkpoints.untrusted_file import Weights

ADAPTERS = ("adapter_config.json", "adapter_model.safetensors", "pytorch_lora_weights.safetensors")
DEEPSPEED = ("*_model_states.pt", "*_optim_states.pt", "zero_to_fp32.py")
DISTRIBUTED = (".metadata", "*.distcp")  # torch.distributed.checkpoint, as FSDP under Lightning writes it
TORCH_SAVE_NAMES = ("_model_states.pt", "_optim_states.pt")


def refuse_mistaken(source: Path) -> None:
    """Raise an error for a source that is recognised as something other than a model.

    Raises:
        UserError: The source is a run, a training state, an adapter or one part of a model.
    """
    if not source.exists():
        return
    if run := _find_run(source):
        model = next((run / name for name in ("model", "best") if (run / name / "unet").is_dir()), None)
        kind = "a run of training.finetune" if run == source else f"a training state of the run {run}"
        advice = f"give its model, {model}" if model else "it has no model yet: continue it until it writes one"
        raise UserError(f"{source} is {kind}, not a checkpoint to sample or start from; {advice}")
    if source.name.endswith(TORCH_SAVE_NAMES) or _matches(source, DEEPSPEED) or _matches(source, ("*/*_states.pt",)):
        raise UserError(
            f"{source} is a training state of DeepSpeed, not a model; give <run>/model of the run that wrote it, or "
            "the file that the zero_to_fp32.py beside it makes of it"
        )
    if _matches(source, DISTRIBUTED):
        raise UserError(
            f"{source} is a distributed training state of Lightning, not a model; give <run>/model of the run that "
            "wrote it, or consolidate it with python -m lightning.pytorch.utilities.consolidate_checkpoint"
        )
    if _matches(source, ADAPTERS):
        raise UserError(
            f"{source} holds an adapter (LoRA), not a model; merge it into its base model first and give the result"
        )
    if source.is_dir() and source.name in ("unet", "vae", "image_encoder", "cc_projection"):
        raise UserError(f"{source} is one part of a model; give the folder around it, {source.parent}")


def refuse_mistaken_names(weights: Weights) -> None:
    """Raise an error for a file whose tensor names show that it is not a model in the original's layout.

    Raises:
        UserError: The file holds a training state of this project, or one part in diffusers' layout.
    """
    if any(name.startswith("model.unet.") for name in weights.tensors):
        raise UserError(f"{weights.path} is a training state of training.finetune; give <run>/model of its run")
    if "conv_in.weight" in weights and any(name.startswith("down_blocks.") for name in weights.tensors):
        raise UserError(
            f"{weights.path} is the U-Net alone, in diffusers' layout; give the folder that holds unet/, vae/ and "
            "image_encoder/"
        )


def _find_run(source: Path) -> Path | None:
    """Return the run whose folder or training state `source` is, or None."""
    candidates = [source] if source.is_dir() else []
    candidates += [folder.parent for folder in (source, *source.absolute().parents) if folder.name == "checkpoints"]
    for run in candidates:
        if (run / "training.yaml").is_file() and not (run / "model_index.json").exists():
            return run
    return None


def _matches(folder: Path, patterns: tuple[str, ...]) -> bool:
    return folder.is_dir() and any(True for pattern in patterns for _ in folder.glob(pattern))
