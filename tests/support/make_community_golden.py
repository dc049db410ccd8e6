"""Write `tests/inference/community.npz` anew: views that diffusers' community pipeline samples from known weights.

    python -m tests.support.make_community_golden pipeline_zero1to3.py tests/inference/community.npz

The first argument is the file examples/community/pipeline_zero1to3.py of the repository huggingface/diffusers. It is
executed, and needs the package kornia. The archive holds every eighth pixel of two poses at η = 0 and η = 1, with
four steps, guidance 3 and one generator of seed 7 per view, as `tests/inference/test_novel_view.py` compares them.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from inference import NovelView
from inference.benchmarking.community_pipeline import community_pipeline
from inference.config import BenchmarkConfig, Sampling
from inference.novel_view import to_image
from tests.support.originals import noise, original_state, write_original

POSES = ((30, 45, 0.1), (-20, 200, 0))


def views(pipeline: Path, eta: float) -> np.ndarray:
    """Return every eighth pixel of the two views, uint8 `[2, 32, 32, 3]`."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = write_original(Path(folder) / "105000.ckpt", original_state())
        model = NovelView.load(checkpoint, device="cpu", precision="float32").model
        front = to_image(torch.tanh(noise("front", 1, 3, 256, 256))[0])
        config = BenchmarkConfig(checkpoint=str(checkpoint), sampling=Sampling(steps=4, guidance=3.0, eta=eta, seed=7))
        sample = community_pipeline(pipeline, model, config)
        return np.stack([np.asarray(sample(front, pose))[::8, ::8] for pose in POSES])


if __name__ == "__main__":
    np.savez_compressed(sys.argv[2], eta_0=views(Path(sys.argv[1]), 0.0), eta_1=views(Path(sys.argv[1]), 1.0))
