"""A checkpoint as a guide redraws views in as little memory as it samples them."""

import numpy as np
import pytest
import torch

from conf.options import UserError
from inference.config import Sampling
from inference.novel_view import NovelView
from inference.poses import cameras_after
from inference.reconstruction.guidance.model_guide import ModelGuide

CAMERAS = cameras_after([(0, 72 * i, 0) for i in range(5)], 20.0)


def redraw(guide, progress=None):
    pictures = np.random.default_rng(0).integers(0, 256, (len(CAMERAS), 16, 16, 3), dtype=np.uint8)
    on_step = (lambda done, total: None) if progress is None else lambda *counts: progress.append(counts)
    return guide.redraw(CAMERAS, pictures, 0.5, 3, on_step).pictures.astype(int)


def test_a_batch_to_redraw_that_does_not_fit_is_halved(novel_view, prepared):
    """A device with memory for two views (four rows with guidance) redraws five; one with less memory fails."""
    novel_view = NovelView(novel_view.model)  # remembers the batch that fitted
    guide = ModelGuide(novel_view, novel_view.encode(prepared), CAMERAS[0], Sampling(steps=4))
    whole, most, progress = redraw(guide), 4, []

    def memory(part, given):
        if len(given[0]) > most:
            raise torch.OutOfMemoryError("out of memory")

    hook = novel_view.model.unet.register_forward_pre_hook(memory)
    try:
        np.testing.assert_allclose(redraw(guide, progress), whole, atol=1)
        steps = 25  # half of the fifty that DDIM needs
        done = [2 * n for n in range(1, 2 * steps + 1)] + [4 * steps + n for n in range(1, steps + 1)]
        assert progress == [(n, 5 * steps) for n in done]
        most = 1
        with pytest.raises(UserError, match="too little memory for a single view"):
            redraw(guide)
    finally:
        hook.remove()
