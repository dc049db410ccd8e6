"""What each process of a run does, whoever started it: builds what is trained, hands it to Lightning, ends."""

import json
import logging
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import WandbLogger

from conf.tracking import WandbMode, begin
from pipeline.shards import read_manifests
from pipeline.storage import write_atomically
from training.acceleration import allow_tensor_cores, prepare
from training.callbacks.checkpointing import BestModel, Checkpoints, FinalModel, latest
from training.callbacks.metrics import Metrics
from training.callbacks.remote_copy import RemoteCopy, restore
from training.callbacks.sample_grid import SampleGrid
from training.callbacks.wandb_artifacts import ModelArtifacts
from training.config import DataKind, FinetuneConfig, Precision, Strategy
from training.data.latents import require_fitting
from training.data.pair_stream import NothingReadable, fixed_pairs
from training.data.split import split
from training.data.workers import report_dead_workers
from training.distributed.strategy import build_strategy, resolve_strategy
from training.distributed.topology import Topology, is_rank_zero, local_rank, plan_batches, topology
from training.memory import available_memory, estimate, require_fit
from training.model.architecture import build
from training.model.cost import peak_flops, step_flops
from training.model.zero123 import Zero123
from training.module import Finetuning
from training.run_config import as_dict, continue_or_begin, recorded_model, trained_steps

log = logging.getLogger(__name__)


def train(config: FinetuneConfig, should_stop: Callable[[], bool] = lambda: False) -> int:
    """What each process of a run does; it stops when it is `told` to, or by a signal."""
    _hush()
    output = Path(config.output)
    if config.mirror:
        restore(output, config.mirror)
    markers = read_manifests(config.data.path, config.data.kind.value)
    halves = split(markers, config.data.validation_fraction, config.data.exclude)
    processes = topology(config.trainer)
    batches = plan_batches(config.data.global_batch, config.data.batch_size, processes.size)
    config = replace(
        config,
        model=config.model.pinned(recorded_model(output)),
        data=replace(config.data, batch_size=batches.size),
        trainer=replace(config.trainer, strategy=resolve_strategy(config.trainer.strategy, processes)),
    )
    continue_or_begin(output, config)
    if (done := trained_steps(output)) < config.trainer.max_steps:
        saved_by = {"strategy": config.trainer.strategy.value, "devices": processes.size}
        last = latest(output / "checkpoints", saved_by, config.trainer.max_steps)
        if is_rank_zero():
            held_out = [uid for shard in halves.validation for uid in shard.uids]
            write_atomically(str(output / "validation.txt"), "".join(f"{uid}\n" for uid in held_out).encode())
        compute = _compute(config, processes)
        module = Finetuning(_model(config, processes, compute), halves, config, batches, compute)
        checkpoints = Checkpoints(output / "checkpoints", config.trainer, saved_by, should_stop)
        trainer = _trainer(config, processes, batches.accumulate, _callbacks(module, processes, checkpoints))
        with report_dead_workers(), checkpoints.signals_restored():
            trainer.fit(module, ckpt_path=last, weights_only=True)
    elif is_rank_zero():
        print(f"{output} is finished: {done} steps")
    if is_rank_zero():
        _point_to(output)
    return 0


def _model(config: FinetuneConfig, processes: Topology, compute: torch.dtype) -> Zero123:
    """As it is trained on these devices, if it fits them."""
    options = config.trainer
    if options.threads:
        torch.set_num_threads(options.threads)
    model = build(config.model, config.seed)
    if config.data.kind is DataKind.latents:
        require_fitting(config.data.path, model, config.data.background)
    whole = options.strategy is not Strategy.zero3
    compile = processes.gpu and whole if options.compile is None else options.compile
    _require_memory(model, config, processes, compute, compile)
    allow_tensor_cores(autotune=not options.deterministic)
    channels_last = compile if options.channels_last is None else options.channels_last
    prepare(model.unet, channels_last, compile, options.checkpointing, products=whole)
    if options.strategy.is_zero:
        model.unet.to(memory_format=torch.contiguous_format)  # type: ignore[call-arg]  # sent as rows of bytes
    if compile and is_rank_zero():
        print("compiling: the first step takes some minutes (trainer.compile=false: none, and slower ones)")
    return model


def _callbacks(module: Finetuning, processes: Topology, checkpoints: Checkpoints) -> list[L.Callback]:
    """What a run shows and leaves behind. The order matters: who copies comes after who writes."""
    config, output, model = module.config, Path(module.config.output), module.model
    peak = peak_flops(torch.cuda.get_device_name(), module.compute) if processes.gpu else None
    pairs = _shown_pairs(module)
    return [
        Metrics(output / "metrics.csv", config.trainer, step_flops(model.unet), peak),
        SampleGrid(output / "samples", pairs, config.sample, config.trainer.sample_every),
        BestModel(output / "best", as_dict(config)),
        FinalModel(output / "model", as_dict(config)),
        checkpoints,
        *([RemoteCopy(output, config.mirror, config.trainer.keep)] if config.mirror else []),
        ModelArtifacts(output, config.artifacts, config.mirror),
    ]


def _shown_pairs(module: Finetuning) -> Any:
    """Return the pairs of the picture grid, of training objects where none is held out or none of those is readable."""
    config, resolution = module.config, module.model.resolution
    if module.split.validation:
        try:
            return fixed_pairs(config.data, module.split.validation, resolution, config.seed, config.sample.rows)
        except NothingReadable:
            log.warning("no held-out object can be read, so there is no validation loss and the pictures are of others")
    return fixed_pairs(config.data, module.split.training, resolution, config.seed, config.sample.rows)


def _trainer(config: FinetuneConfig, processes: Topology, accumulate: int, callbacks: list[L.Callback]) -> L.Trainer:
    options = config.trainer
    validate = bool(options.validate_every and config.data.validation_fraction)
    return L.Trainer(
        max_steps=options.max_steps,
        accumulate_grad_batches=accumulate,
        accelerator="gpu" if processes.gpu else "cpu",
        devices=processes.devices,
        num_nodes=processes.nodes,
        strategy=build_strategy(options.strategy, processes, config.data.batch_size),
        precision="32-true",
        deterministic=options.deterministic or None,
        gradient_clip_val=config.optimizer.clip_norm or None,
        val_check_interval=options.validate_every * accumulate if validate else None,
        limit_val_batches=None if validate else 0,
        check_val_every_n_epoch=None,  # the one epoch is endless
        num_sanity_val_steps=0,
        log_every_n_steps=options.log_every,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,  # Checkpoints is ours: Lightning would not write aside and rename
        use_distributed_sampler=False,
        logger=_wandb(config, Path(config.output)),
        callbacks=callbacks,
    )


def _require_memory(
    model: Zero123, config: FinetuneConfig, processes: Topology, compute: torch.dtype, compiled: bool
) -> None:
    """Say what a step will need, before the first one; refuse a batch that cannot fit."""
    options = config.trainer
    needed = estimate(
        model,
        config.data.batch_size,
        options.strategy,
        processes.size,
        latents=False,  # picture grids decode, so autoencoder and image encoder are there in any case
        compute_dtype=compute,
        checkpointing=options.checkpointing,
        compiled=compiled,
    )
    if is_rank_zero():
        passes = config.data.global_batch // (processes.size * config.data.batch_size)
        number = str(compute).removeprefix("torch.")
        print(f"{config.data.global_batch} pairs a step: {passes} × {config.data.batch_size} on each device, {number}")
        print(needed)
    device = torch.device(f"cuda:{local_rank()}" if processes.gpu else "cpu")
    require_fit(needed, available_memory(device, processes.devices))


def _compute(config: FinetuneConfig, processes: Topology) -> torch.dtype:
    """What the passes compute in; weights, optimiser and averages are float32."""
    if config.trainer.precision is Precision.auto:
        able = processes.gpu and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if able else torch.float32
    return torch.bfloat16 if config.trainer.precision is Precision.bfloat16 else torch.float32


def _wandb(config: FinetuneConfig, output: Path) -> WandbLogger | bool:
    """Offline a run is files under `output/wandb` for `wandb sync`; nothing is asked, nothing sent. The sessions of a
    run that was interrupted have one id."""
    if config.wandb.mode is WandbMode.disabled or not is_rank_zero():
        return False
    remembered = output / "wandb.json"
    id = json.loads(remembered.read_text())["id"] if remembered.exists() else None
    experiment = begin(config.wandb, str(output), "training", output.name, as_dict(config), id)
    write_atomically(str(remembered), json.dumps({"id": experiment.id}).encode())
    return WandbLogger(experiment=experiment)


def _hush() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    for name in ("lightning.pytorch", "lightning.fabric", "DeepSpeed"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # The frozen parts are in eval mode on purpose; the others are between torch, Lightning and DeepSpeed.
    for message in (
        ".*in eval mode at the start of training",
        ".*isinstance.treespec",
        ".*does not have many workers",
        ".*torch.distributed.*is deprecated",
        ".*DeepSpeed Stage 3 checkpoint, each worker",
        ".*srun. command is available",
    ):
        warnings.filterwarnings("ignore", message)


def _point_to(output: Path) -> None:
    model = output / "model"
    print(
        f"model: {model}; sample from it: python -m inference.sample checkpoint={model} image=… "
        "'poses=[[20,45,0]]' output=outputs/views"
    )
