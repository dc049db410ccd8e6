"""A folder of a reconstruction keeps the views of a failed fit, and is complete with all its results only."""

import json

import numpy as np
import pytest
import torch

from conf.options import UserError
from inference.meshes.ray_casting import RayCaster
from inference.meshes.textured_mesh import plain_mesh
from inference.poses import cameras_after
from inference.reconstruction.command import meshes_in
from inference.reconstruction.config import ReconstructConfig, ViewsSettings
from inference.reconstruction.guidance.oracle_guide import OracleGuide
from inference.reconstruction.output_folder import SETTINGS, STATE
from inference.reconstruction.reconstruction import deciding_settings, fitted_field, reconstruct_object
from inference.reconstruction.sources import Opened, Source

CAMERA = cameras_after([(0, 0, 0)], 20.0)[0]


class SmallDevice(OracleGuide):
    """An oracle on a device with memory to draw views, but none to redraw them."""

    def redraw(self, *given):
        raise torch.OutOfMemoryError("out of memory")


def test_drawn_views_outlive_a_failed_fit(tmp_path):
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) / 2
    sides = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
    cube = plain_mesh(corners * 0.6, np.concatenate([sides[:, [0, 1, 2]], sides[:, [0, 2, 3]]]))
    guide = SmallDevice(RayCaster(cube), CAMERA, 24)
    picture = guide.draw(CAMERA[None], 0, lambda done, total: None)
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


@pytest.mark.parametrize("lost", ["mesh.glb", "turntable.mp4", "report.html", "reconstruction.json"])
def test_a_folder_without_a_result_is_not_finished(tmp_path, lost):
    def opened(known_elevation):
        raise UserError("opened again")

    config = ReconstructConfig(image="chair.png")
    source = Source("chair.png", {"image": "0"}, ("elevation",), opened)
    settings = json.dumps(deciding_settings(source, config))
    for name in ("settings.json", "reconstruction.json", "mesh.glb", "turntable.mp4", "report.html"):
        (tmp_path / name).write_text(settings)
    assert reconstruct_object(tmp_path, source, config) == json.loads(settings)
    (tmp_path / lost).unlink()
    with pytest.raises(UserError, match="opened again"):
        reconstruct_object(tmp_path, source, config)


def test_meshes_of_one_name_are_both_named(tmp_path):
    for name in ("a chair.glb", "a_chair.stl"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"a chair\.glb and .*a_chair\.stl both are object a_chair; rename one"):
        meshes_in(tmp_path)
