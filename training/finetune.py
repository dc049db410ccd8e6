"""Train Zero-1-to-3 on view shards.

    python -m training.finetune data.path=outputs/views model=tiny output=outputs/run

The run's folder then holds `model/` (the checkpoint folder, averaged weights), `metrics.csv`, `samples/*.png`,
`validation.txt` (the objects that it is never trained on) and `checkpoints/last.ckpt`. The same command continues
an interrupted run and leaves a finished one as it is.
"""

import logging
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from conf.command import run
from conf.options import UserError
from conf.tracking import WandbMode, begin
from pipeline.shards import read_markers
from training.callbacks import Metrics, PictureGrid
from training.config import FinetuneConfig, TrainerConfig
from training.data import fixed_pairs, split
from training.model import checkpoint
from training.model.architecture import build
from training.module import Finetuning
from training.record import as_dict, continue_or_begin, finished


def main(config: FinetuneConfig) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    # The frozen parts are in eval mode on purpose; the other two are between Lightning and torch.
    for message in (".*in eval mode at the start of training", ".*isinstance.treespec", ".*does not have many workers"):
        warnings.filterwarnings("ignore", message)
    halves = split(read_markers(config.data.path, "views"), config.data.validation_fraction, config.data.without)
    output = Path(config.output)
    continue_or_begin(output, config)
    if finished(output, config):
        print(f"{output} is finished: {config.trainer.max_steps} steps")
        _point_to(output)
        return 0
    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)
    held_out = [uid for shard in halves.validation for uid in shard.uids]
    (output / "validation.txt").write_text("".join(f"{uid}\n" for uid in held_out))
    model = build(config.model, config.seed)
    if config.trainer.channels_last:
        model.unet.to(memory_format=torch.channels_last)  # type: ignore[call-arg]
    module = Finetuning(model, halves, config)
    seen = halves.validation or halves.training
    pairs = fixed_pairs(config.data, seen, model.resolution, config.seed, config.sample.rows)
    try:
        trainer = _trainer(config, output, pairs)
    except MisconfigurationException as error:
        raise UserError(f"trainer: {str(error).splitlines()[0]}") from error
    last = output / "checkpoints" / "last.ckpt"
    try:
        trainer.fit(module, ckpt_path=last if last.exists() else None)
    except SystemExit:  # how Lightning ends a run that is interrupted
        raise KeyboardInterrupt from None
    if trainer.is_global_zero:
        with module.ema.applied(model):
            checkpoint.save(model, output / "model")
        (output / "model" / "training.yaml").write_text((output / "training.yaml").read_text())
        _point_to(output)
    return 0


def _trainer(config: FinetuneConfig, output: Path, pairs: Any) -> L.Trainer:
    options = config.trainer
    validate = bool(options.validate_every and config.data.validation_fraction)
    return L.Trainer(
        max_steps=options.max_steps,
        accumulate_grad_batches=options.accumulate,
        accelerator=options.accelerator,
        devices=options.devices,
        num_nodes=options.num_nodes,
        strategy=options.strategy,
        precision=_precision(options),
        gradient_clip_val=config.optimizer.clip_norm or None,
        val_check_interval=options.validate_every * options.accumulate if validate else None,
        limit_val_batches=None if validate else 0,
        check_val_every_n_epoch=None,  # the one epoch is endless
        num_sanity_val_steps=0,
        log_every_n_steps=options.log_every,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=_wandb(config, output),
        callbacks=[
            Metrics(output / "metrics.csv", options),
            PictureGrid(output / "samples", pairs, config.sample, options.sample_every),
            ModelCheckpoint(
                output / "checkpoints",
                save_last=True,
                save_top_k=0,
                every_n_train_steps=options.checkpoint_every,
                save_on_train_epoch_end=False,
            ),
        ],
    )


def _precision(options: TrainerConfig) -> Any:
    """`auto` is bfloat16 on a GPU that has it, else single precision: on CPUs bfloat16 attention is slower."""
    if options.precision != "auto":
        return options.precision
    gpu = torch.cuda.is_available() and options.accelerator != "cpu"
    return "bf16-mixed" if gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"


def _wandb(config: FinetuneConfig, output: Path) -> WandbLogger | bool:
    """Offline a run is files under `output/wandb` for `wandb sync`; nothing is asked, nothing sent."""
    if config.wandb.mode is WandbMode.disabled or rank_zero_only.rank:  # type: ignore[attr-defined]
        return False
    experiment = begin(config.wandb, str(output), "training", output.name, as_dict(config))
    return WandbLogger(experiment=experiment)


def _point_to(output: Path) -> None:
    model = output / "model"
    print(
        f"model: {model}; sample from it: python -m inference.sample checkpoint={model} image=… "
        "'poses=[[20,45,0]]' output=outputs/views"
    )


if __name__ == "__main__":
    run(main, FinetuneConfig, "training", "finetune", help=__doc__)
