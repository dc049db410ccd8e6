"""Sample batches of views in several processes: Ray tasks, each in a process that loads the checkpoint once.

              Batch: encoded views, cameras, seeds            PNG files
    this process ────────────────────────────▶ Ray workers ─────────────▶ this process, which writes them

The output needs no shared file system. The checkpoint must be readable on each machine: a model on the hub, whose
revision this process resolves, or a folder with the same path.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

from conf.options import UserError
from inference.evaluation.config import EvaluateConfig, Workers
from inference.evaluation.methods.model import ModelOptions, load_model
from inference.evaluation.methods.predictions import Batch, BatchPredictor, Drawn, Predictor
from pipeline.cluster import MAX_LOSSES, SHIPPED, connected, gpu_share, run_tasks
from training.model.checkpoints.hub import pinned
from training.model.hardware.device import resolve_device

PACKAGES = (*SHIPPED, "training", "inference")
MAX_LOCAL_LOSSES = 1  # of a batch, on this machine, where a process is rarely lost except for lack of memory


@dataclass(frozen=True)
class Job:
    """Input of a Ray task: options of the model, the hash of its weights, which the task checks, and a batch."""

    options: ModelOptions
    weights: str
    batch: Batch


@dataclass(frozen=True)
class Description:
    """Resolution, weights and batch size of the checkpoint as a worker of a cluster loads it; see `Predictor`."""

    resolution: int
    weights: str
    batch: int


@dataclass(frozen=True)
class WorkerPredictor:
    """Method that predicts views in the processes of a Ray cluster.

    Attributes:
        options: Options of the model.
        cluster: The cluster.
        resolution: Side R of the pictures, pixels.
        weights: Hash of the weights.
        batch: Number of requests in a batch.
    """

    options: ModelOptions
    cluster: Workers
    resolution: int
    weights: str
    batch: int

    def draw(self, batches: Iterable[Batch]) -> Iterator[Drawn]:
        """Yield the pictures of each batch, in order of completion; a batch whose process is lost is drawn again."""
        jobs = (Job(self.options, self.weights, batch) for batch in batches)
        if (first := next(jobs, None)) is None:
            return
        cluster, threads = self.cluster, self.cluster.threads
        losses = MAX_LOCAL_LOSSES if cluster.address is None else MAX_LOSSES
        with connected(cluster, threads, PACKAGES):
            share = gpu_share(self.options, cluster)
            yield from run_tasks(draw, chain([first], jobs), cluster, threads, share, losses)


def load_predictor(config: EvaluateConfig) -> BatchPredictor:
    """Load the checkpoint that the options name, into this process or into those of Ray.

    Raises:
        UserError: As `NovelView.load`; Ray is not installed, or there is no such cluster.
    """
    options, cluster = ModelOptions.of(config), config.cluster
    if cluster.in_this_process:
        predictor = load_model(options)
        if resolve_device(options.device).type == "cpu" and (cores := len(os.sched_getaffinity(0))) > cluster.threads:
            print(
                f"cluster.workers=1 draws on {cluster.threads} of {cores} cores; cluster.workers=null uses all of them"
            )
        return predictor
    if not find_spec("ray"):
        raise UserError("cluster: this Python has no Ray; pip install '.[cluster]', or use cluster.workers=1")
    options = replace(options, checkpoint=_located(options.checkpoint))
    if cluster.address is None:
        options = replace(options, device=resolve_device(options.device).type)
        loaded = load_model(options)
        return WorkerPredictor(options, cluster, loaded.resolution, loaded.weights, loaded.batch)
    with connected(cluster, cluster.threads, PACKAGES):
        share = gpu_share(options, cluster)
        options = replace(options, device="cuda" if share else "cpu")
        (found,) = run_tasks(describe, [options], replace(cluster, workers=1), cluster.threads, share)
    return WorkerPredictor(options, cluster, found.resolution, found.weights, found.batch)


def describe(options: ModelOptions) -> Iterator[Description]:
    """Yield the description of the checkpoint, as a task."""
    predictor = _predictor(options)
    yield Description(predictor.resolution, predictor.weights, predictor.batch)


def draw(job: Job) -> Iterator[Drawn]:
    """Yield the pictures of a batch, as a task.

    Raises:
        UserError: The checkpoint that this machine reads, or its number format, is another than the first worker's.
    """
    predictor = _predictor(job.options)
    if predictor.weights != job.weights:
        raise UserError(
            f"checkpoint={job.options.checkpoint}: a worker has other weights than the first one, or another number "
            "format; use a checkpoint that all machines share, and precision=float32 or float16"
        )
    yield from predictor.draw([job.batch])


_loaded: list[tuple[ModelOptions, Predictor]] = []  # of this process, for all its batches


def _predictor(options: ModelOptions) -> Predictor:
    if not _loaded or _loaded[0][0] != options:
        _loaded[:] = [(options, load_model(options))]
    return _loaded[0][1]


def _located(checkpoint: str) -> str:
    """Return a checkpoint as all processes find it: its absolute path, or its commit on the hub."""
    return str(Path(checkpoint).absolute()) if Path(checkpoint).exists() else pinned(checkpoint)
