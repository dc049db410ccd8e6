"""Predict views with a checkpoint."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from inference.config import Sampling
from inference.evaluation.config import EvaluateConfig
from inference.evaluation.methods.method import Pixels
from inference.evaluation.methods.predictions import Predictor, Request
from inference.novel_view import EncodedImage, NovelView, to_image
from rendering.cameras import cartesian_to_spherical, pose_between
from training.model.conditioning import POSE_DIM, convert_pose
from training.model.hardware.cpu_threads import use_free_cores
from training.model.hardware.precision import Precision
from training.model.picture import as_floats

BATCH = {"cpu": 16, "cuda": 256}
ENCODED_TOGETHER = 32


@dataclass(frozen=True)
class ModelOptions:
    """Options of the command that decide the model's predictions, equal in all processes.

    Attributes:
        checkpoint: The checkpoint.
        device: auto, cpu, cuda or cuda:1.
        precision: Number format.
        compile: Whether to compile the U-Net.
        batch: Views sampled together; None: as suits the device.
        threads: Threads of torch on a CPU.
        sampling: Settings of the sampler.
    """

    checkpoint: str
    device: str
    precision: Precision
    compile: bool
    batch: int | None
    threads: int
    sampling: Sampling

    @classmethod
    def of(cls, config: EvaluateConfig) -> Self:
        """Return those of the options of the command."""
        threads, compile = config.cluster.threads, config.compile
        return cls(config.checkpoint, config.device, config.precision, compile, config.batch, threads, config.sampling)


def load_model(options: ModelOptions) -> Predictor:
    """Load a checkpoint into this process; raises as `NovelView.load`."""
    use_free_cores()  # for the metrics; the predictions have a fixed number of threads
    novel_view = NovelView.load(options.checkpoint, options.device, options.precision, options.compile)
    batch = options.batch or BATCH[novel_view.model.device.type]

    def predict(requests: Sequence[Request]) -> Pixels:
        with _torch_threads(options.threads):
            return predict_views(novel_view, requests, options.sampling, batch)

    return Predictor(predict, novel_view.model.resolution, novel_view.fingerprint, batch, novel_view)


@torch.no_grad()
def predict_views(novel_view: NovelView, requests: Sequence[Request], sampling: Sampling, batch: int) -> Pixels:
    """Return the views `[N, R, R, 3]` that the model samples for some requests.

    Without a pose, embedding and pose vector of the context token are zero: the mean, over all poses, of the tokens
    that drop-out of the embedding trains. The condition latent is kept.
    """
    model = novel_view.model
    pictures = torch.from_numpy(np.stack([request.picture for request in requests])).to(model.device)
    inputs = as_floats(pictures.permute(0, 3, 1, 2))
    posed = torch.tensor([request.target_centre is not None for request in requests], device=model.device)
    parts = [(model.condition_latent(part), model.embed(part)) for part in inputs.split(ENCODED_TOGETHER)]
    condition, embedding = (torch.cat(columns) for columns in zip(*parts, strict=True))
    poses = torch.from_numpy(np.stack([_pose(request) for request in requests]))
    polars = torch.tensor([cartesian_to_spherical(request.input_centre)[0] for request in requests])
    vectors = convert_pose(model.cc_projection.pose_vector, poses, polars.double())
    vectors[~posed.cpu()] = 0  # all of it: Stable-Zero123's holds the polar angle of the input camera
    seeds = [request.seed for request in requests]
    encoded = EncodedImage(condition, embedding * posed[:, None])
    views = novel_view.sample(encoded, vectors, sampling, seeds, _silent, max_batch=batch)
    return np.stack([np.asarray(to_image(view)) for view in views])


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    """Set the number of torch's threads, on which the last bits of a result depend, and set it back."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _pose(request: Request) -> np.ndarray:
    if request.target_centre is None:
        return np.zeros(POSE_DIM)
    return pose_between(request.target_centre, request.input_centre)


def _silent(done: int, total: int) -> None:
    """Take the place of the sampler's progress bar."""
