"""A checkpoint and a picture to new views, as a library and as a command."""

import json
import shutil

import numpy as np
import pytest
from command import command
from PIL import Image

import inference.novel_view
from inference.config import Sampling
from inference.novel_view import NovelView
from training.model import checkpoint
from training.model.architecture import Architecture, ImageEncoderShape, UNetShape, build

QUICK = Sampling(steps=4)
FRONT = Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint of random weights that do listen to the pose."""
    shape = Architecture(
        resolution=16,
        patch=2,
        unet=UNetShape(channels=[16, 32], attention=[False, True], layers=1, heads=2, groups=8),
        encoder=ImageEncoderShape(image_size=16, patch_size=8, width=16, layers=1, heads=2, projection=16),
    )
    folder = tmp_path_factory.mktemp("run") / "model"
    model = build(shape, seed=3)
    model.cc_projection.projection.weight.data[:, -4:] = 1.0
    checkpoint.save(model, folder)
    return folder


@pytest.fixture(scope="module")
def novel_view(folder):
    return NovelView.load(folder, "cpu")


def pixels(images):
    return [np.asarray(image) for image in images]


def test_the_pose_is_a_turn_in_degrees(novel_view):
    still, around, behind, back = (
        pixels(novel_view(FRONT, [[0, 0, 0]], QUICK)),
        *(pixels(novel_view(FRONT, [pose], QUICK)) for pose in ([0, 360, 0], [0, 180, 0], [0, 0, 0.5])),
    )
    np.testing.assert_allclose(around, still, atol=1)
    assert np.abs(np.subtract(behind, still, dtype=float)).max() > 3
    assert np.abs(np.subtract(back, still, dtype=float)).max() > 3


def test_a_view_does_not_depend_on_its_company(novel_view, monkeypatch):
    poses = [[10, 20, 0], [0, 90, 0.1], [-20, 180, 0], [30, -60, 0], [5, 5, 0]]
    together = pixels(novel_view(FRONT, poses, QUICK))
    monkeypatch.setattr(inference.novel_view, "BATCH", 2)
    np.testing.assert_allclose(pixels(novel_view(FRONT, poses, QUICK)), together, atol=1)
    np.testing.assert_allclose(pixels(novel_view(FRONT, poses[:1], QUICK))[0], together[0], atol=1)


def test_the_seed_decides(novel_view):
    first, again, other = (pixels(novel_view(FRONT, [[0, 45, 0]], Sampling(4, seed=s))) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (np.asarray(first) != np.asarray(other)).any()


@pytest.fixture
def picture(tmp_path):
    FRONT.save(tmp_path / "front.png")
    return tmp_path / "front.png"


def sample(folder, picture, output, *words):
    words = words or ("poses=[[20,45,0],[0,180,0]]",)
    return command(
        "inference.sample", f"checkpoint={folder}", f"image={picture}", f"output={output}", "sampling.steps=3", *words
    )


def test_the_command_writes_pictures_a_sheet_and_the_poses(folder, picture, tmp_path):
    done = sample(folder, picture, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "000.png", "001.png", "poses.json", "views.png",
    ]  # fmt: skip
    assert done.stdout.splitlines()[-1] == f"2 views of {picture}: {tmp_path / 'out/views.png'}"
    assert Image.open(tmp_path / "out/000.png").size == (16, 16)
    assert json.loads((tmp_path / "out/poses.json").read_text())["poses"] == [[20, 45, 0], [0, 180, 0]]
    assert "sampling" in done.stderr  # the progress bar
    assert sample(folder, picture, tmp_path / "out", "poses=[[0,0,0]]").returncode == 0
    assert not (tmp_path / "out/001.png").exists()  # of the run before


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["poses=[]"], "poses: give 1 to 1000, not 0"),
        (["poses=[[0,nan,0]]"], "poses: [0, nan, 0] is no [Δpolar, Δazimuth, Δradius]"),
        (["poses=[[0,90]]"], "poses: [0, 90] is no [Δpolar, Δazimuth, Δradius]"),
        (["poses=[[a,b,c]]"], "poses: ['a', 'b', 'c'] is no [Δpolar, Δazimuth, Δradius]"),
        (["poses=[[0,0,0]]", "sampling.steps=0"], "sampling.steps=0 is outside 1..500"),
        (["poses=[[0,0,0]]", "image=nothing.png"], "image: there is no picture file nothing.png"),
        (["poses=[[0,0,0]]", "image=pyproject.toml"], "image: pyproject.toml is no picture"),
        (["poses=[[0,0,0]]", "checkpoint=nothing"], "there is no folder nothing"),
        (["poses=[[0,0,0]]", "device=gpu"], "device=gpu is none of auto, cpu, cuda"),
        (["poses=[[0,0,0]]", "device=cuda"], "device=cuda: this machine has no CUDA device"),
    ],
)
def test_what_a_user_can_get_wrong_is_one_sentence(folder, picture, tmp_path, words, sentence):
    if "device=cuda" in words and __import__("torch").cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    done = sample(folder, picture, tmp_path / "out", *words)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {sentence}") and len(done.stderr.splitlines()) == 1, done.stderr
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_of_another_model_is_refused(folder, picture, tmp_path):
    plain = tmp_path / "plain"
    shutil.copytree(folder, plain)
    index = json.loads((plain / "model_index.json").read_text())
    del index["cc_projection"]
    (plain / "model_index.json").write_text(json.dumps(index))
    done = sample(plain, picture, tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr == f"error: {plain} is no Zero-1-to-3 checkpoint: it has no cc_projection\n"
