"""Train Zero-1-to-3 on view shards.

    python -m training.finetune data.path=outputs/views model=tiny output=outputs/run
    python -m training.finetune data.path=outputs/views trainer=zero2 \
        model.pretrained=lambdalabs/sd-image-variations-diffusers
    torchrun --nproc-per-node=8 -m training.finetune +cluster=torchrun data.path=…      (scripts: jobs/)

The run's folder then holds `model/` and `best/` (checkpoint folders with averaged weights: the last ones and those of
the lowest validation loss), `metrics.csv`, `samples/*.png`, `validation.txt` (the validation objects) and
`checkpoints/`. Repeat the command to resume an interrupted run at the step where it stopped; a finished run is not
changed.
"""

import sys
from contextlib import nullcontext

import yaml

from conf.command import run
from pipeline.output import FolderLayout, claimed, require_apart, require_own_folder
from training.config import FinetuneConfig


def is_record(contents: bytes) -> bool:
    """Return whether the contents of a `training.yaml` are the record of a run."""
    try:
        return isinstance(yaml.safe_load(contents)["trainer"]["max_steps"], int)
    except (yaml.YAMLError, ValueError, TypeError, KeyError):
        return False


LAYOUT = FolderLayout(
    record="training.yaml",
    is_record=is_record,
    writes=r"training\.yaml|validation\.txt|metrics\.csv|wandb\.json|samples|best|model|checkpoints|ray",
)


def main(config: FinetuneConfig) -> int:
    """Run the command; return the exit code."""
    # Every process checks the folder; the launcher or rank zero holds the lock.
    require_own_folder(config.output, LAYOUT)
    from training.distributed.topology import is_rank_zero  # imports torch

    launcher = bool(config.ray.address) or is_rank_zero()
    if config.mirror and launcher:
        require_apart(config.mirror, config.output, "output", nested=False, name="mirror")
        require_own_folder(config.mirror, LAYOUT, "mirror")
    with claimed(config.output, LAYOUT) if launcher else nullcontext():
        return train_here_or_on_ray(config)


def train_here_or_on_ray(config: FinetuneConfig) -> int:
    """Train in this process, or start the processes on a Ray cluster; return the exit code."""
    from training.callbacks.checkpointing import Stopped
    from training.distributed.ray_train import launch
    from training.distributed.topology import is_rank_zero
    from training.train import train

    if config.ray.address:
        launch(config)
        return 0
    try:
        return train(config)
    except Stopped:
        if is_rank_zero():
            raise KeyboardInterrupt from None
        sys.exit(130)


def command() -> None:
    """Run the command line."""
    run(main, FinetuneConfig, "training", "finetune", help=__doc__)


if __name__ == "__main__":
    command()
