"""Convert checkpoints between the layouts of the original, diffusers, threestudio and this project.

    python -m training.convert source=105000.ckpt target=outputs/zero123
    python -m training.convert source=outputs/run/model target=mine.ckpt
    python -m training.convert source=org/name/105000.ckpt target=outputs/zero123      (on the Hugging Face hub)

Reads released Zero-1-to-3 checkpoints, Stable-Zero123 and image-conditioned Stable Diffusion (.ckpt, .safetensors),
and diffusers folders. Writes a folder for `inference.sample` and diffusers' community pipeline, or a file for the
original's code if the target ends in .ckpt. No code in a source is executed.
"""

from pathlib import Path

from conf.command import run
from pipeline.output import LOCK, locked
from training.config import ConvertConfig


def main(config: ConvertConfig) -> int:
    """Run the command; return the exit code."""
    from training.checkpoint_conversion import check_target, convert_checkpoint

    target = Path(config.target)
    check_target(config, Path(config.source), target)
    is_file = target.suffix == ".ckpt"
    folder, lock = (target.parent, f".{target.name}{LOCK}") if is_file else (target, LOCK)
    with locked(str(folder), "target", lock):
        return convert_checkpoint(config, target)


def command() -> None:
    """Run the command line."""
    run(main, ConvertConfig, "training", "convert", help=__doc__)


if __name__ == "__main__":
    command()
