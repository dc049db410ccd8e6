"""Run one process of a training run: build the model and the data, and fit them with Lightning."""

import json
import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import WandbLogger

from conf.options import UserError
from conf.tracking import WandbMode, begin
from pipeline.storage import write_atomically
from training.callbacks.checkpointing import BestModel, Checkpoints, FinalModel, latest
from training.callbacks.metrics import Metrics
from training.callbacks.remote_copy import RemoteCopy, restore
from training.callbacks.sample_grid import SampleGrid
from training.callbacks.wandb_artifacts import ModelArtifacts
from training.config import DataConfig, DataKind, FinetuneConfig, Strategy
from training.data.batches import fixed_pairs
from training.data.data_module import PairData
from training.data.latents import require_fitting
from training.data.pair_stream import NothingReadable
from training.data.sources import Source, pairs_of_weight, source_roots, training_sources
from training.data.split import Split, split
from training.data.workers import report_dead_workers
from training.distributed.strategy import build_strategy, resolve_strategy
from training.distributed.topology import (
    BatchPlan,
    Topology,
    global_rank,
    is_rank_zero,
    local_rank,
    plan_batches,
    topology,
)
from training.model.architecture import build
from training.model.hardware.cost import peak_flops, step_flops
from training.model.hardware.cpu_threads import use_free_cores
from training.model.hardware.device import dtype_name, training_dtype
from training.model.hardware.memory import available_memory, estimate, require_fit
from training.model.zero123 import Zero123
from training.module import Finetuning
from training.optimization.acceleration import allow_tensor_cores, prepare
from training.run_config import (
    as_dict,
    record_run,
    recorded_model,
    require_copy_of_run,
    require_same_run,
    trained_steps,
)

log = logging.getLogger(__name__)


def train(config: FinetuneConfig, should_stop: Callable[[], bool] = lambda: False) -> int:
    """Train in this process, together with the other processes of the run; return the exit code.

    Args:
        config: Options of the run.
        should_stop: Called after each step; true saves the state and stops, as SIGTERM and SIGINT do.

    Raises:
        Stopped: The run was stopped before its last step.
        UserError: An option does not fit the data, the machine or the earlier run in `output`.
    """
    _configure_logging()
    output = Path(config.output)
    if config.mirror:
        require_copy_of_run(config.mirror, config)
        restore(output, config.mirror)
    sources = training_sources(config.data)
    objects = split(sources, config.data.validation_fraction, config.data.exclude)
    processes = topology(config.trainer)
    batches = plan_batches(config.data.global_batch, config.data.batch_size, processes.size)
    config = _resolve(config, processes, batches)
    require_same_run(output, config)
    if (steps := trained_steps(output)) < config.trainer.max_steps:
        _fit(config, sources, objects, processes, batches, should_stop)
    elif is_rank_zero():
        print(f"{output} is finished: {steps} steps")
    if is_rank_zero():
        _print_next_command(output)
    return 0


def _resolve(config: FinetuneConfig, processes: Topology, batches: BatchPlan) -> FinetuneConfig:
    """Return the options with the model of the earlier run in `output`, and the batch size and strategy in use."""
    return replace(
        config,
        model=config.model.pinned(recorded_model(Path(config.output))),
        data=replace(config.data, batch_size=batches.size),
        trainer=replace(config.trainer, strategy=resolve_strategy(config.trainer.strategy, processes)),
    )


def _fit(
    config: FinetuneConfig,
    sources: Sequence[Source],
    objects: Split,
    processes: Topology,
    batches: BatchPlan,
    should_stop: Callable[[], bool],
) -> None:
    """Train from the newest state, or from the start, to the last step."""
    output = Path(config.output)
    saved_by = {"strategy": config.trainer.strategy.value, "devices": processes.size}
    last = latest(output / "checkpoints", saved_by, config.trainer.max_steps)
    if is_rank_zero():
        record_run(output, config)
        _write_validation_uids(output, objects)
        if len(sources) > 1:
            _print_sources(config.data, sources, objects)
    compute = training_dtype(config.trainer.precision, processes.gpu)
    model = _build_model(config, processes, compute)
    data = PairData(config, objects, model.resolution)
    module = Finetuning(model, data, config, batches, compute)
    checkpoints = Checkpoints(output / "checkpoints", config.trainer, saved_by, should_stop)
    trainer = _build_trainer(config, processes, batches.accumulate, _callbacks(module, processes, checkpoints))
    with report_dead_workers(), checkpoints.signals_restored():
        try:
            trainer.fit(module, datamodule=data, ckpt_path=last, weights_only=True)
        except UnpicklingError as error:
            raise UserError(
                f"{last}: not the state of a run, or damaged; delete it and its copy in a mirror"
            ) from error


def _build_model(config: FinetuneConfig, processes: Topology, compute: torch.dtype) -> Zero123:
    """Return the model, prepared for these devices, if a step fits into their memory."""
    options = config.trainer
    if options.threads:
        torch.set_num_threads(options.threads)
    elif not processes.gpu:
        use_free_cores(processes.devices)
    model = build(config.model, config.seed)
    if config.data.kind is DataKind.latents:
        for root in source_roots(config.data.path):
            require_fitting(root, model, config.data.background)
    unsharded = options.strategy is not Strategy.zero3
    compile = processes.gpu and unsharded if options.compile is None else options.compile
    _require_memory(model, config, processes, compute, compile)
    allow_tensor_cores(autotune=not options.deterministic)
    channels_last = compile if options.channels_last is None else options.channels_last
    prepare(model.unet, channels_last, compile, options.checkpointing, products=unsharded)
    if options.strategy.is_zero:  # ZeRO flattens weights in the order of their memory
        model.unet.to(memory_format=torch.contiguous_format)  # type: ignore[call-arg]
    if compile and is_rank_zero():
        print("compiling: the first step takes minutes (trainer.compile=false starts at once, with slower steps)")
    return model


def _callbacks(module: Finetuning, processes: Topology, checkpoints: Checkpoints) -> list[L.Callback]:
    """Return the callbacks in order: those that copy files come after those that write them."""
    config, output, model = module.config, Path(module.config.output), module.model
    peak = peak_flops(torch.cuda.get_device_name(), module.compute) if processes.gpu else None
    pairs = _grid_pairs(module.data)
    return [
        Metrics(output / "metrics.csv", config.trainer, step_flops(model), peak),
        SampleGrid(output / "samples", pairs, config.sample, config.trainer.sample_every),
        BestModel(output / "best", as_dict(config)),
        FinalModel(output / "model", as_dict(config)),
        checkpoints,
        *([RemoteCopy(output, config.mirror, config.trainer.keep)] if config.mirror else []),
        ModelArtifacts(output, config.artifacts, config.mirror),
    ]


def _grid_pairs(data: PairData) -> Any:
    """Return pairs for the sample grid, of validation objects if any is readable, else of training objects."""
    config = data.config
    if data.split.validation:
        try:
            return fixed_pairs(config.data, data.split.validation, data.resolution, config.seed, config.sample.rows)
        except NothingReadable:
            log.warning("no validation object is readable: no validation loss, and samples of training objects")
    return fixed_pairs(config.data, data.split.training, data.resolution, config.seed, config.sample.rows)


def _build_trainer(config: FinetuneConfig, processes: Topology, accumulate: int, callbacks: list[Any]) -> L.Trainer:
    options = config.trainer
    validate = bool(options.validate_every and config.data.validation_fraction)
    return L.Trainer(
        max_steps=options.max_steps,
        accumulate_grad_batches=accumulate,
        accelerator="gpu" if processes.gpu else "cpu",
        devices=processes.devices,
        num_nodes=processes.nodes,
        strategy=build_strategy(options.strategy, processes, config.data.batch_size),
        precision="32-true",  # Finetuning.autocast handles bfloat16
        deterministic=options.deterministic or None,
        gradient_clip_val=config.optimizer.clip_norm or None,
        val_check_interval=options.validate_every * accumulate if validate else None,
        limit_val_batches=None if validate else 0,
        check_val_every_n_epoch=None,  # the stream is one endless epoch
        num_sanity_val_steps=0,
        log_every_n_steps=options.log_every,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,  # Lightning's checkpoint callback does not write atomically
        use_distributed_sampler=False,
        logger=_wandb_logger(config, Path(config.output)),
        callbacks=callbacks,
    )


def _require_memory(
    model: Zero123, config: FinetuneConfig, processes: Topology, compute: torch.dtype, compiled: bool
) -> None:
    """Print the estimated memory of a step.

    Raises:
        UserError: A step does not fit into the memory of a device.
    """
    options = config.trainer
    needed = estimate(
        model,
        config.data.batch_size,
        options.strategy,
        processes.size,
        latents=config.data.kind is DataKind.latents,
        compute_dtype=compute,
        checkpointing=options.checkpointing,
        compiled=compiled,
    )
    if is_rank_zero():
        size, total = config.data.batch_size, config.data.global_batch
        passes = total // (processes.size * size)
        print(f"{total} pairs a step: {passes} × {size} on each device, {dtype_name(compute)}")
        print(needed)
    device = torch.device(f"cuda:{local_rank()}" if processes.gpu else "cpu")
    require_fit(needed, available_memory(device, processes.devices))


def _wandb_logger(config: FinetuneConfig, output: Path) -> WandbLogger | bool:
    """Return a logger, or False without W&B; all sessions of a run share the id in `wandb.json`.

    In offline mode the run is written to `output/wandb`, for `wandb sync`, and nothing is sent.
    """
    if config.wandb.mode is WandbMode.disabled or not is_rank_zero():
        return False
    path = output / "wandb.json"
    id = json.loads(path.read_text())["id"] if path.exists() else None
    experiment = begin(config.wandb, str(output), "training", output.name, as_dict(config), id)
    write_atomically(str(path), json.dumps({"id": experiment.id}).encode())
    return WandbLogger(experiment=experiment)


def _write_validation_uids(output: Path, objects: Split) -> None:
    uids = dict.fromkeys(uid for shard in objects.validation for uid in shard.uids)
    write_atomically(str(output / "validation.txt"), "".join(f"{uid}\n" for uid in uids).encode())


def _print_sources(config: DataConfig, sources: Sequence[Source], objects: Split) -> None:
    """Print the objects of each source and the pairs that an epoch takes of each object."""
    for number, source in enumerate(sources):
        training, held_out = (
            sum(len(shard.uids) for shard in shards if shard.source == number)
            for shards in (objects.training, objects.validation)
        )
        weight = config.weights[number] if config.weights else 1
        pairs = pairs_of_weight(config.pairs_per_object, weight)
        print(f"{source.root}: {training:,} to train on, each in {pairs} pairs an epoch; {held_out:,} held out")


def _configure_logging() -> None:
    """Log warnings with their level and rank, and silence messages of libraries that need no action."""
    logging.basicConfig(level=logging.WARNING, format=f"%(levelname)s rank {global_rank()}: %(message)s")
    for name in ("lightning.pytorch", "lightning.fabric", "DeepSpeed"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # The frozen parts are in eval mode on purpose; the other messages concern torch, Lightning and DeepSpeed.
    for message in (
        ".*in eval mode at the start of training",
        ".*isinstance.treespec",
        ".*does not have many workers",
        ".*torch.distributed.*is deprecated",
        ".*DeepSpeed Stage 3 checkpoint, each worker",
        ".*srun. command is available",
    ):
        warnings.filterwarnings("ignore", message)


def _print_next_command(output: Path) -> None:
    model = output / "model"
    print(
        f"model: {model}; sample from it: python -m inference.sample checkpoint={model} image=… "
        "'poses=[[20,45,0]]' output=outputs/views"
    )
