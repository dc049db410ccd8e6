"""The command inference.sample."""

import json
import shutil
import signal
import time

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from inference.novel_view import NovelView
from inference.poses import cameras_after
from rendering.cameras import camera_centre
from tests.support.command import Started, command

TWO = "poses=[[20,45,0],[0,180,0]]"
QUICK = ("sampling.steps=3", "elevation=20")


def sample(folder, picture, output, *words):
    return command(
        "inference.sample", f"checkpoint={folder}", f"image={picture}", f"output={output}", *QUICK, *(words or (TWO,))
    )


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_command_writes_views_sheet_animation_and_poses(folder, picture, tmp_path):
    out = tmp_path / "out"
    done = sample(folder, picture, out)
    assert done.returncode == 0, done.stderr
    assert names(out) == ["000.png", "001.png", "input.png", "poses.json", "views.gif", "views.mp4", "views.png"]
    assert done.stdout.splitlines()[-1] == f"2 views of {picture}: {out / 'views.png'}"
    assert "sampling: 100%" in done.stderr  # the progress bar
    written = json.loads((out / "poses.json").read_text())
    assert written["poses"] == [[20, 45, 0], [0, 180, 0]]
    assert written["elevation"] == {"degrees": 20, "uncertainty_degrees": None}
    assert written["settings"]["sampling"]["steps"] == 3
    # 20° above the horizon and turned down by 20° is on the horizon; 45° counter-clockwise is between x and y.
    x, y, z = camera_centre(np.array(written["views"][0]["camera"]))
    assert abs(z) < 1e-6 and x == pytest.approx(y) and x > 0
    shown = Image.open(out / "input.png")
    view = NovelView.load(folder, "cpu")(shown, [[0, 180, 0]], steps=3, cutout="none", fill=0)
    np.testing.assert_allclose(np.asarray(view[0], int), np.asarray(Image.open(out / "001.png"), int), atol=1)


def test_a_second_run_replaces_only_files_of_the_first(folder, picture, tmp_path):
    out = tmp_path / "out"
    assert sample(folder, picture, out).returncode == 0
    (out / "notes.txt").write_text("mine")
    assert sample(folder, picture, out, "poses=[[0,0,0]]").returncode == 0
    assert names(out) == ["000.png", "input.png", "notes.txt", "poses.json", "views.png"]


def test_an_output_that_cannot_be_written_is_refused_before_anything_is_read(picture, tmp_path):
    (tmp_path / "file").touch()
    for output in (tmp_path / "file", tmp_path / "file/deep/er"):
        done = sample(tmp_path / "no checkpoint", picture, output)
        assert done.returncode == 2
        assert done.stderr == (
            f"error: output={output}: {tmp_path / 'file'} is not a writable folder; choose another path\n"
        )


def test_nothing_is_written_beside_the_output(folder, picture, tmp_path):
    """The output may be a volume mounted in a read-only folder."""
    out = tmp_path / "volume/out"
    out.mkdir(parents=True)
    before = out.parent.stat().st_mtime_ns
    assert sample(folder, picture, out).returncode == 0
    assert (out / "poses.json").exists() and out.parent.stat().st_mtime_ns == before


def test_repeating_the_command_samples_nothing(folder, picture, tmp_path):
    out = tmp_path / "out"
    assert sample(folder, picture, out).returncode == 0
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    copied = shutil.copytree(folder, tmp_path / "elsewhere/model")
    for path in copied.rglob("*"):  # the copy is the same checkpoint, in a read-only folder too
        path.chmod(0o555 if path.is_dir() else 0o444)
    again = sample(f"{copied}/", f"{picture.parent}/./{picture.name}", f"{out}/")
    assert again.stdout.splitlines()[-1] == f"2 views of {picture}, which existed: {out / 'views.png'}"
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before
    contents = (out / "001.png").read_bytes()
    (out / "001.png").unlink()
    assert sample(folder, picture, out).returncode == 0
    assert (out / "001.png").read_bytes() == contents
    before = (out / "000.png").stat().st_mtime_ns
    picture.write_bytes(picture.read_bytes() + b"\0")  # the same name, another file
    assert sample(folder, picture, out).returncode == 0
    assert (out / "000.png").stat().st_mtime_ns != before


def test_a_changed_checkpoint_is_sampled_again(folder, picture, tmp_path):
    """The checkpoint's path stays the same; each part of the weights is changed in turn."""
    used, out = shutil.copytree(folder, tmp_path / "model"), tmp_path / "out"
    assert sample(used, picture, out).returncode == 0
    before, weights = (out / "000.png").read_bytes(), used / "unet/diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    for name in tensors:
        if name.startswith("mid_block.attentions.0") and "to_v" in name:
            tensors[name] = -4 * tensors[name]
    save_file(tensors, weights, metadata={"format": "pt"})
    done = sample(used, picture, out)
    assert done.returncode == 0 and (out / "000.png").read_bytes() != before
    tensors["mid_block.resnets.0.conv1.weight"][0, 0, 0, 0] = float("nan")
    save_file(tensors, weights, metadata={"format": "pt"})
    done = sample(used, picture, tmp_path / "black")
    assert done.returncode == 2 and "mid_block.resnets.0.conv1.weight" in done.stderr
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "black").exists()


@pytest.mark.parametrize(("word", "views"), [("orbit=4", 4), ("grid=2x3", 6)])
def test_orbits_and_grids(folder, picture, tmp_path, word, views):
    assert sample(folder, picture, tmp_path / "out", word, "sampling.sampler=dpm_solver").returncode == 0
    poses = json.loads((tmp_path / "out/poses.json").read_text())["poses"]
    assert len(poses) == views == sum(name[:3].isdigit() for name in names(tmp_path / "out"))
    assert poses[0] == {"orbit=4": [0, 0, 0], "grid=2x3": [-30, 0, 0]}[word]


def test_variance_is_that_of_the_samples(folder, picture, tmp_path):
    out = tmp_path / "out"
    assert sample(folder, picture, out, "poses=[[0,90,0]]", "samples=3").returncode == 0
    files = ["000.png", "000-1.png", "000-2.png"]
    (view,) = json.loads((out / "poses.json").read_text())["views"]
    assert view["files"] == files
    guesses = np.stack([np.asarray(Image.open(out / file)) / 255 for file in files])
    assert view["variance"] == pytest.approx(guesses.var(axis=0).mean()) and view["variance"] > 0
    assert Image.open(out / "views.png").width > 4 * 128  # input, three samples, variance
    assert sample(folder, picture, tmp_path / "one", "poses=[[0,90,0]]", "sampling.seed=2").returncode == 0
    assert (tmp_path / "one/000.png").read_bytes() == (out / "000-2.png").read_bytes()


def test_a_folder_of_pictures_with_an_unreadable_one(folder, picture, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("a.png", "b.PNG", "notes.txt"):
        shutil.copy(picture, pictures / name)
    (pictures / "._a.png").write_bytes(b"\0\5\x16\7 what macOS keeps beside a picture")
    (pictures / "c.jpg").write_bytes(b"no picture")
    done = sample(folder, pictures, tmp_path / "out")
    assert done.returncode == 1
    assert names(tmp_path / "out") == ["a", "b", "inputs.png"]
    sheet = Image.open(tmp_path / "out/inputs.png")
    shown = Image.open(tmp_path / "out/b/input.png").resize((128, 128), Image.Resampling.BICUBIC)
    assert sheet.size == (2 * (128 + 4), 128 + 18)  # two pictures, a gap after each, labels below
    assert (np.asarray(sheet.crop((132, 0, 260, 128))) == np.asarray(shown)).all()
    assert f"inputs of the model: {tmp_path / 'out/inputs.png'}" in done.stdout
    assert "1 of 3 pictures have no views:" in done.stderr and f"{pictures / 'c.jpg'}: is not a picture" in done.stderr
    assert done.stdout.splitlines()[-1] == f"views of 2 pictures: {tmp_path / 'out'}/*/views.png"
    (pictures / "c.jpg").unlink()
    again = sample(folder, pictures, tmp_path / "out")
    assert again.returncode == 0 and "views of 2 pictures existed" in again.stdout


def test_pictures_of_one_stem_have_own_folders_and_unsupported_ones_are_named(folder, picture, tmp_path):
    pictures, out = tmp_path / "pictures", tmp_path / "out"
    pictures.mkdir()
    shutil.copy(picture, pictures / "chair.png")
    assert sample(folder, pictures, out).returncode == 0 and names(out) == ["chair", "inputs.png"]
    for name, grey in (("chair.jpg", 90), ("chair.png.jpg", 30)):
        photograph = Image.new("RGB", (64, 64), "white")
        photograph.paste((grey, 0, 0), (16, 16, 48, 48))
        photograph.save(pictures / name)
    (pictures / "logo.svg").write_text("<svg/>")
    done = sample(folder, pictures, out)
    assert done.returncode == 1 and "1 of 4 pictures have no views:" in done.stderr
    assert f"{pictures / 'logo.svg'}: " in done.stderr and "views of 1 pictures existed" in done.stdout
    assert names(out) == ["chair", "chair.jpg", "chair.png.jpg", "inputs.png"]
    shown = {name: json.loads((out / name / "poses.json").read_text())["image"] for name in names(out)[:3]}
    assert shown == {name: str(pictures / (name if "." in name else "chair.png")) for name in shown}


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_run_leaves_no_partial_folder(folder, picture, tmp_path, end):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(12):
        shutil.copy(picture, pictures / f"{i:02d}.png")
    words = (f"checkpoint={folder}", f"image={pictures}", f"output={tmp_path / 'out'}", *QUICK, TWO)
    process = Started("inference.sample", *words)
    while not (tmp_path / "out/01/poses.json").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(end)
    _, stderr = process.communicate()
    if end is not signal.SIGKILL:
        assert process.returncode == 128 + end and "Traceback" not in stderr
        assert stderr.splitlines()[-1] == "stopped; repeat the command to continue"
    assert command("inference.sample", *words).returncode == 0
    assert names(tmp_path / "out") == [*(f"{i:02d}" for i in range(12)), "inputs.png"]
    assert all(len(names(tmp_path / "out" / f"{i:02d}")) == 7 for i in range(12))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "give one of poses, orbit, grid and cameras, not none"),
        (["orbit=4", "grid=2x2"], "give one of poses, orbit, grid and cameras, not orbit and grid"),
        (["orbit=10000"], "orbit: give 1 to 1000, not 10000"),
        (["grid=100x100"], "grid: give 1 to 1000, not 10000"),
        (["poses=[[0,nan,0]]"], "poses: [0, nan, 0] "),
        (["poses=[[0,90]]"], "poses: [0, 90] "),
        (["poses=[[a,b,c]]"], "poses: ['a', 'b', 'c'] "),
        (["cameras=nothing.npy"], "cameras=nothing.npy: "),
        (["orbit=2", "sampling.steps=0"], "sampling.steps=0: "),
        (["orbit=2", "samples=0"], "samples=0: "),
        (["orbit=2", "elevation=high"], "elevation=high: "),
        (["orbit=2", "image=nothing.png"], "image=nothing.png: there is no such picture file"),
        (["orbit=2", "image=pyproject.toml"], "image=pyproject.toml: is not a picture"),
        (["orbit=2", "image=conf"], "image=conf: there is no picture in this folder"),
        (["orbit=2", "fill=1.5"], "fill=1.5: must be 0, between 0.1 and 1"),
        (
            ["orbit=2", "cutout=magic"],
            "cutout=magic: must be auto, u2netp, isnet, none or the path of an .onnx file",
        ),
        (["orbit=2", "checkpoint=nothing"], "there is no folder nothing"),
        (["orbit=2", "device=gpu"], "device=gpu: "),
        (["orbit=2", "device=cuda"], "device=cuda: "),
    ],
)
def test_invalid_options_are_refused_with_one_sentence(folder, picture, tmp_path, words, sentence):
    if "device=cuda" in words and __import__("torch").cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    given = {"checkpoint": folder, "image": picture, "output": tmp_path / "out"} | dict(w.split("=", 1) for w in words)
    done = command("inference.sample", *(f"{name}={value}" for name, value in given.items()))
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {sentence}") and len(done.stderr.splitlines()) == 1, done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["truncated", "giant", "blank", "transparent"])
def test_a_picture_that_is_refused_leaves_no_output(folder, tmp_path, kind):
    path = tmp_path / "x.png"
    match kind:
        case "truncated":
            Image.effect_noise((99, 99), 90).save(path)
            path.write_bytes(path.read_bytes()[:3000])
        case "giant":
            Image.new("1", (20_000, 20_000)).save(path)
        case "blank":
            Image.new("RGB", (99, 99), "white").save(path)
        case "transparent":
            Image.new("RGBA", (99, 99), (9, 9, 9, 0)).save(path)
    sentence = {"truncated": "is damaged", "giant": "pixels; scale it"}.get(kind, "is blank")
    done = sample(folder, path, tmp_path / "out")
    assert done.returncode == 2 and sentence in done.stderr
    assert done.stderr.startswith("error: image") and len(done.stderr.splitlines()) == 1
    assert names(tmp_path) == ["x.png"]


def test_a_checkpoint_of_another_model_is_refused(folder, picture, tmp_path):
    plain = tmp_path / "plain"
    shutil.copytree(folder, plain)
    index = json.loads((plain / "model_index.json").read_text())
    del index["cc_projection"]
    (plain / "model_index.json").write_text(json.dumps(index))
    done = sample(plain, picture, tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr == f"error: {plain} is no Zero-1-to-3 checkpoint: it has no cc_projection\n"


@pytest.mark.parametrize(
    "missing", ["unet/config.json", "unet/diffusion_pytorch_model.safetensors", "model_index.json"]
)
def test_a_checkpoint_with_a_file_missing_is_refused(folder, picture, tmp_path, missing):
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / missing).unlink()
    done = sample(broken, picture, tmp_path / "out")
    assert done.returncode == 2
    assert str(broken) in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert not (tmp_path / "out").exists()


def test_stable_zero123_needs_an_elevation(folder, picture, tmp_path):
    stable = tmp_path / "stable"
    shutil.copytree(folder, stable)
    config = stable / "cc_projection/config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "pose_vector": "stable_zero123"}))
    done = sample(stable, picture, tmp_path / "out", TWO, "elevation=none")
    assert done.returncode == 2 and "give elevation=20" in done.stderr
    assert not (tmp_path / "out").exists()
    assert sample(stable, picture, tmp_path / "out").returncode == 0
    # The file of cameras holds the elevation of the input camera, which the views depend on.
    cameras = cameras_after([(0, 0, 0), *json.loads(TWO.removeprefix("poses="))], 20, radius=1.5, azimuth_degrees=40)
    np.save(tmp_path / "cameras.npy", cameras)
    for name, words in {"cameras": ("elevation=estimate",), "other": ("elevation=-50",)}.items():
        done = sample(stable, picture, tmp_path / name, f"cameras={tmp_path}/cameras.npy", *words)
        assert done.returncode == 0, done.stderr
    assert same_views(tmp_path / "out", tmp_path / "cameras")
    assert not same_views(tmp_path / "out", tmp_path / "other")
    written = json.loads((tmp_path / "cameras/poses.json").read_text())
    assert written["elevation"] == {"degrees": 20, "uncertainty_degrees": None}
    np.testing.assert_allclose([view["camera"] for view in written["views"]], cameras[1:], atol=1e-8)


def same_views(one, other):
    pairs = [[np.asarray(Image.open(path / name), int) for path in (one, other)] for name in ("000.png", "001.png")]
    return all(np.abs(first - second).max() <= 1 for first, second in pairs)


def test_views_too_small_for_an_elevation_are_warned_of_once(folder, picture, tmp_path):
    (tmp_path / "pictures").mkdir()
    for name in ("a.png", "b.png"):
        shutil.copy(picture, tmp_path / "pictures" / name)
    done = sample(folder, tmp_path / "pictures", tmp_path / "out", TWO, "elevation=estimate")
    assert done.returncode == 0
    assert done.stderr.count("elevation: unknown; views of 16 × 16 pixels") == 1
    written = json.loads((tmp_path / "out/b/poses.json").read_text())
    assert written["elevation"]["degrees"] is None and written["views"][0]["camera"] is None


def test_progress_bar_has_the_given_name(novel_view, prepared, capsys):
    novel_view(prepared, [[0, 0, 0]], steps=2, bar="elevation")
    assert "elevation: 100%" in capsys.readouterr().err
