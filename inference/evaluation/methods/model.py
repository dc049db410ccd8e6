"""Predict views with a checkpoint."""

from collections.abc import Sequence

import numpy as np
import torch

from inference.evaluation.config import EvaluateConfig
from inference.evaluation.methods.method import Pixels
from inference.evaluation.methods.predictions import Predictor, Request
from inference.novel_view import EncodedImage, NovelView, to_image
from rendering.cameras import cartesian_to_spherical, pose_between
from training.model.conditioning import POSE_DIM, convert_pose
from training.model.hardware.cpu_threads import use_free_cores
from training.model.picture import as_floats

BATCH = {"cpu": 16, "cuda": 256}
ENCODED_TOGETHER = 32


def load_checkpoint(config: EvaluateConfig) -> Predictor:
    """Load the checkpoint that the options name.

    Raises:
        UserError: As `NovelView.load`.
    """
    novel_view = NovelView.load(config.checkpoint, config.device, config.precision, config.compile)
    device = novel_view.model.device.type
    if device == "cpu":
        use_free_cores()
    batch = config.batch or BATCH[device]

    def predict(requests: Sequence[Request]) -> Pixels:
        return predict_views(novel_view, requests, config, batch)

    return Predictor(predict, novel_view.model.resolution, novel_view.fingerprint, batch)


@torch.no_grad()
def predict_views(novel_view: NovelView, requests: Sequence[Request], config: EvaluateConfig, batch: int) -> Pixels:
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
    seeds = [request.seed for request in requests]
    encoded = EncodedImage(condition, embedding * posed[:, None])
    views = novel_view.sample(encoded, vectors, config.sampling, seeds, _silent, max_batch=batch)
    return np.stack([np.asarray(to_image(view)) for view in views])


def _pose(request: Request) -> np.ndarray:
    if request.target_centre is None:
        return np.zeros(POSE_DIM)
    return pose_between(request.target_centre, request.input_centre)


def _silent(done: int, total: int) -> None:
    """Take the place of the sampler's progress bar."""
