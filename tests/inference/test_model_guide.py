"""A checkpoint as a guide redraws views in as little memory as it samples them, and a failed fit keeps drawn views."""

import json

import numpy as np
import pytest
import torch

from conf.options import UserError
from inference.config import Sampling
from inference.meshes.ray_casting import RayCaster
from inference.meshes.textured_mesh import plain_mesh
from inference.poses import cameras_after
from inference.reconstruction.config import ReconstructConfig, ViewsSettings
from inference.reconstruction.guidance.model_guide import ModelGuide
from inference.reconstruction.guidance.oracle_guide import OracleGuide
from inference.reconstruction.output_folder import SETTINGS, STATE
from inference.reconstruction.reconstruction import fitted_field
from inference.reconstruction.sources import Opened

CAMERAS = cameras_after([(0, 72 * i, 0) for i in range(5)], 20.0)


def redraw(guide, progress=None):
    pictures = np.random.default_rng(0).integers(0, 256, (len(CAMERAS), 16, 16, 3), dtype=np.uint8)
    on_step = (lambda done, total: None) if progress is None else lambda *counts: progress.append(counts)
    return guide.redraw(CAMERAS, pictures, 0.5, 3, on_step).pictures.astype(int)


def test_a_batch_to_redraw_that_does_not_fit_is_halved(novel_view, prepared):
    """A device with memory for two views (four rows with guidance) redraws five; one with less memory fails."""
    guide = ModelGuide(novel_view, novel_view.encode(prepared), CAMERAS[0], Sampling(steps=4))
    whole, most, progress = redraw(guide), 4, []

    def memory(part, given):
        if len(given[0]) > most:
            raise torch.OutOfMemoryError("out of memory")

    hook = novel_view.model.unet.register_forward_pre_hook(memory)
    try:
        np.testing.assert_allclose(redraw(guide, progress), whole, atol=1)
        assert progress == [(done, 10) for done in (2, 4, 6, 8, 9, 10)]
        most = 1
        with pytest.raises(UserError, match="too little memory for a single view"):
            redraw(guide)
    finally:
        hook.remove()


class SmallDevice(OracleGuide):
    """An oracle on a device with memory to draw views, but none to redraw them."""

    def redraw(self, *given):
        raise torch.OutOfMemoryError("out of memory")


def test_drawn_views_outlive_a_failed_fit(tmp_path):
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) / 2
    sides = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
    cube = plain_mesh(corners * 0.6, np.concatenate([sides[:, [0, 1, 2]], sides[:, [0, 2, 3]]]))
    guide = SmallDevice(RayCaster(cube), CAMERAS[0], 24)
    picture = guide.draw(CAMERAS[:1], 0, lambda done, total: None)
    views = ViewsSettings(elevations=[0.0, 40.0], count=4, guesses=1, nodes=[16], epochs=[1])
    opened, config = Opened(guide, picture, picture, 20.0), ReconstructConfig(image="chair.png", views=views)
    settings, state = tmp_path / "out" / SETTINGS, tmp_path / "out" / STATE
    settings.parent.mkdir()
    settings.write_text(json.dumps({}))
    with pytest.raises(UserError, match="too little memory for the fit"):
        fitted_field(settings.parent, opened, config)
    assert settings.exists() and state.exists()
    state.write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"state\.npz: cannot be continued .*; delete it, and repeat the command"):
        fitted_field(settings.parent, opened, config)
    assert settings.exists() and state.exists()
