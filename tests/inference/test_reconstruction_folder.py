"""A folder of a reconstruction keeps what it holds until something better is saved."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from conf.options import UserError
from inference.meshes.ray_casting import RayCaster
from inference.meshes.textured_mesh import plain_mesh
from inference.poses import cameras_after
from inference.reconstruction.command import meshes_in, reconstruct
from inference.reconstruction.config import ReconstructConfig, Texture, ViewsSettings
from inference.reconstruction.guidance.oracle_guide import OracleGuide
from inference.reconstruction.reconstruction import deciding_settings, reconstruct_object
from inference.reconstruction.sources import Opened, Source

CAMERA = cameras_after([(0, 0, 0)], 20.0)[0]


SIDES = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) / 2
RESULTS = ("mesh.glb", "turntable.mp4", "report.html", "reconstruction.json", "field.npz")


class SmallDevice(OracleGuide):
    """An oracle on a device with memory to draw views, but none to redraw them."""

    def redraw(self, *given):
        raise torch.OutOfMemoryError("out of memory")


class TinyDevice(OracleGuide):
    """An oracle on a device without memory to draw views."""

    def draw(self, *given):
        raise torch.OutOfMemoryError("out of memory")


class Watching(OracleGuide):
    """An oracle that notes the contents of a folder when it draws."""

    def watch(self, folder):
        self.folder, self.found = folder, None
        return self

    def draw(self, *given):
        if self.folder.exists():
            self.found = contents(self.folder)
        return super().draw(*given)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def source_of(make):
    """Return the source of a cube whose views a guide draws, `make(caster, camera, resolution)`."""
    cube = plain_mesh(CORNERS * 0.6, np.concatenate([SIDES[:, [0, 1, 2]], SIDES[:, [0, 2, 3]]]))

    def opened(known_elevation):
        guide = make(RayCaster(cube), CAMERA, 24)
        picture = OracleGuide.draw(guide, CAMERA[None], 0, lambda done, total: None)
        return Opened(guide, picture, picture, 20.0)

    return Source("chair.png", {"image": "0"}, ("elevation",), opened)


def config_of(**views):
    small = {"elevations": [-30.0, 40.0], "count": 4, "guesses": 1, "nodes": [16], "epochs": [1]} | views
    return ReconstructConfig(
        image="chair.png", views=ViewsSettings(**small), faces=200, texture=Texture.vertex, turntable=4
    )


def write_result(folder, config):
    """Write files that stand for a finished result of other settings."""
    settings = json.dumps(deciding_settings(source_of(OracleGuide), config))
    (folder / "views").mkdir(parents=True)
    for name in (*RESULTS, "settings.json", "views/000.png", "views/099.png"):
        (folder / name).write_text(settings)
    return json.loads(settings)


def test_drawn_views_outlive_a_failed_fit(tmp_path):
    with pytest.raises(UserError, match="too little memory for the fit"):
        reconstruct_object(tmp_path / "out", source_of(SmallDevice), config_of())
    (state,) = (tmp_path / "out").glob("state*.npz")
    assert (tmp_path / "out/settings.json").exists()
    state.write_bytes(b"damaged")
    with pytest.raises(UserError, match=rf"{state.name}: cannot be continued .*; delete it, and repeat the command"):
        reconstruct_object(tmp_path / "out", source_of(SmallDevice), config_of())
    assert (tmp_path / "out/settings.json").exists() and state.exists()


def test_a_failed_fit_leaves_the_earlier_result_and_the_states_of_other_fits(tmp_path):
    """A third fit fails: nothing is lost of an interrupted fit and of a finished one, each of other settings."""
    out, old = tmp_path / "out", config_of(count=5)
    with pytest.raises(UserError):
        reconstruct_object(out, source_of(SmallDevice), config_of())
    (out / "settings.json").unlink()
    finished = write_result(out, old)
    before = contents(out)
    with pytest.raises(UserError):
        reconstruct_object(out, source_of(SmallDevice), config_of(count=6))
    after = contents(out)
    assert before.items() <= after.items() and len(after) == len(before) + 1  # the state of the third
    assert reconstruct_object(out, source_of(SmallDevice), old) == finished


def test_a_new_fit_replaces_an_earlier_result_when_its_field_is_saved(tmp_path):
    out = tmp_path / "out"
    write_result(out, config_of(count=5))
    before, guides = contents(out), []
    record = reconstruct_object(
        out, source_of(lambda *cube: guides.append(Watching(*cube).watch(out)) or guides[-1]), config_of()
    )
    assert before.items() <= guides[0].found.items()
    after = contents(out)
    assert set(after) == {*RESULTS, "settings.json", "input.png", *(f"views/{i:03d}.png" for i in range(9))}
    assert not {name for name in before if after.get(name) == before[name]}
    assert json.loads(after["reconstruction.json"]) == record


def test_a_fit_that_fails_at_once_leaves_no_folder(tmp_path):
    with pytest.raises(UserError, match="too little memory for the fit"):
        reconstruct_object(tmp_path / "out", source_of(TinyDevice), config_of())
    assert not (tmp_path / "out").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    with pytest.raises(UserError):
        reconstruct_object(tmp_path / "mine", source_of(TinyDevice), config_of())
    assert contents(tmp_path / "mine") == {"notes.txt": b"mine"}


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


def test_hidden_files_are_no_meshes(tmp_path):
    for name in ("box.glb", "._box.glb"):  # macOS writes the second
        (tmp_path / name).touch()
    assert meshes_in(tmp_path) == {"box": tmp_path / "box.glb"}


def test_an_input_that_the_command_would_replace_is_refused(tmp_path):
    out, base = tmp_path / "out", ReconstructConfig(image="x", output=str(tmp_path / "out"), device="cpu")
    write_result(out, config_of())
    (tmp_path / "link.glb").symlink_to(out / "mesh.glb")
    before = contents(out)
    for path in (out / "mesh.glb", out / "views/../mesh.glb", tmp_path / "link.glb"):
        with pytest.raises(UserError, match=rf"^oracle={path}: .*output={out}"):
            reconstruct(replace(base, image="", oracle=str(path)))
    for path in (out / "input.png", out / "views/000.png"):
        with pytest.raises(UserError, match=rf"^image={path}: .*output={out}"):
            reconstruct(replace(base, image=str(path)))
    (out / "mine.png").write_text("no picture")
    with pytest.raises(UserError, match=r"mine\.png: is not a picture"):
        reconstruct(replace(base, image=str(out / "mine.png")))
    assert contents(out) == before | {"mine.png": b"no picture"}
