"""Train Zero-1-to-3 on view shards.

    python -m training.finetune data.path=outputs/views model=tiny output=outputs/run
    python -m training.finetune data.path=outputs/views trainer=zero2 model.pretrained=sd-image-variations
    torchrun --nproc-per-node=8 -m training.finetune +cluster=torchrun data.path=…      (jobs/ has the whole scripts)

The run's folder then holds `model/` and `best/` (checkpoint folders, averaged weights: the last and those of the
lowest validation loss), `metrics.csv`, `samples/*.png`, `validation.txt` (the objects that it is never trained on) and
`checkpoints/`. The same command continues an interrupted run, to the step, and leaves a finished one as it is.
"""

import sys

from conf.command import run
from training.checkpoints import Stopped
from training.config import FinetuneConfig
from training.process import train
from training.ray_train import launch
from training.world import is_first


def main(config: FinetuneConfig) -> int:
    if config.ray.address:
        launch(config)
        return 0
    try:
        return train(config)
    except Stopped:
        if is_first():
            raise KeyboardInterrupt from None
        sys.exit(130)


if __name__ == "__main__":
    run(main, FinetuneConfig, "training", "finetune", help=__doc__)
