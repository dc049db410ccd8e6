"""The command inference.reconstruct, with a box of six colours as oracle, and with models."""

import csv
import json
import re
import shutil
import signal
import time

import numpy as np
import pytest
import trimesh
from PIL import Image

from inference.meshes.ray_casting import RayCaster
from inference.meshes.read_mesh import read_mesh
from inference.poses import cameras_after
from tests.support.command import Started, command

TINY = [
    "resolution=64", "views.nodes=[32]", "views.epochs=[5]", "views.elevations=[-40,40]", "views.count=4", "faces=600",
    "texture_size=128", "turntable=8", "device=cpu",
]  # fmt: skip
VIEWS = 1 + 2 * 4
# A box whose front, where the input camera looks from (azimuth 0), is red. Linear and sRGB values are the same.
COLOURS = {"+x": (255, 0, 0), "-x": (0, 0, 255), "+y": (0, 255, 0), "-y": (255, 255, 0), "+z": (255, 0, 255),
           "-z": (0, 255, 255)}  # fmt: skip
SIDES = np.array([1.0, 0.7, 0.5])
OUTPUTS = {
    "settings.json", "input.png", "field.npz", "views", "mesh.glb", "turntable.mp4", "report.html",
    "reconstruction.json",
}  # fmt: skip


def write_box(path):
    """Write the box as GLB, y up, in the colours of its faces."""
    box = trimesh.creation.box(SIDES)
    axis = np.abs(box.face_normals).argmax(axis=1)
    colours = [COLOURS["-+"[int(n[a] > 0)] + "xyz"[a]] for n, a in zip(box.face_normals, axis, strict=True)]
    vertices = box.vertices[box.faces].reshape(-1, 3)
    y_up = np.stack([vertices[:, 0], vertices[:, 2], -vertices[:, 1]], axis=1)
    mesh = trimesh.Trimesh(y_up, np.arange(len(y_up)).reshape(-1, 3), process=False)
    mesh.visual.vertex_colors = np.repeat(np.array(colours, np.uint8), 3, axis=0)
    mesh.export(path)
    return path


def reconstruct(output, *words, **env):
    return command("inference.reconstruct", f"output={output}", *TINY, *words, **env)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def times(folder):
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    return write_box(tmp_path_factory.mktemp("oracle") / "box.glb")


@pytest.fixture(scope="module")
def finished(box, tmp_path_factory):
    output = tmp_path_factory.mktemp("finished") / "out"
    done = reconstruct(output, f"oracle={box}")
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished folder that a test may change."""
    return shutil.copytree(finished, tmp_path / "out")


def middle_colour(mesh, polar, azimuth):
    """Return the mean colour of the middle of a view from a turn away from the horizon at azimuth 0."""
    (camera,) = cameras_after([(polar, azimuth, 0)], 0.0)
    picture = RayCaster(mesh).render(camera[None], 64)[0]
    assert picture[28:36, 28:36, 3].min() == 255
    return picture[28:36, 28:36, :3].reshape(-1, 3).mean(axis=0)


def test_outputs_agree(finished):
    assert {path.name for path in finished.iterdir()} - {"preview.png"} == OUTPUTS
    record = json.loads((finished / "reconstruction.json").read_text())
    solid = trimesh.load(finished / "mesh.glb", force="mesh")
    solid.merge_vertices(merge_tex=True, merge_norm=True)
    assert solid.is_watertight and solid.volume > 0 and record["mesh"]["watertight"]
    assert solid.extents.max() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(solid.extents, SIDES[[0, 2, 1]], atol=0.2)  # y up
    assert len(solid.faces) == record["mesh"]["faces"] <= 600
    assert record["truth"]["iou"] > 0.65 and record["truth"]["chamfer"] < 0.06
    assert len(list((finished / "views").iterdir())) == VIEWS
    assert (finished / "reconstruction.json").stat().st_mtime_ns == max(times(finished).values())


def test_the_mesh_is_upright_and_its_front_faces_the_input_camera(finished):
    mesh = read_mesh(finished / "mesh.glb")
    turns = {"+x": (0, 0), "-x": (0, 180), "+y": (0, 90), "-y": (0, -90), "+z": (-89, 0), "-z": (89, 0)}
    for face, (polar, azimuth) in turns.items():
        seen = middle_colour(mesh, polar, azimuth)
        assert min(COLOURS, key=lambda name: np.abs(COLOURS[name] - seen).sum()) == face
    picture = np.asarray(Image.open(finished / "input.png"))
    assert picture[36, 32].tolist() == [255, 0, 0]  # of a camera 20° above the horizon
    np.testing.assert_array_equal(np.asarray(Image.open(finished / "views/000.png")), picture)


def test_equal_commands_do_nothing(finished, box):
    before = times(finished)
    others = ["suffix=''", "cutout=none", "fill=0.5", "sampling.steps=7", "views.guesses=2", "compile=true"]
    assert reconstruct(finished, f"oracle={box}", *others).returncode == 0  # an oracle does not depend on them
    assert times(finished) == before


@pytest.mark.slow
def test_the_mesh_alone_is_made_anew(copied, box):
    before = times(copied)
    (copied / "reconstruction.json").unlink()
    mesh = (copied / "mesh.glb").read_bytes()
    assert reconstruct(copied, f"oracle={box}").returncode == 0
    assert (copied / "mesh.glb").read_bytes() == mesh
    assert reconstruct(copied, f"oracle={box}", "format=obj", "texture=vertex", "height=12cm").returncode == 0
    after = times(copied)
    assert after["field.npz"] == before["field.npz"] and after["views/000.png"] == before["views/000.png"]
    assert not (copied / "mesh.glb").exists()
    vertices = trimesh.load(copied / "mesh.obj", force="mesh", process=False).vertices
    assert np.ptp(vertices, axis=0)[1] == pytest.approx(0.12, abs=1e-6)


@pytest.mark.slow
def test_a_folder_of_an_older_layout_is_made_anew(copied, box):
    for name in ("settings.json", "reconstruction.json"):
        (copied / name).write_text(
            json.dumps({"command": "inference.reconstruct", "fit_settings": {"method": "views"}})
        )
    (copied / "field.npz").write_bytes(b"of another version")
    assert reconstruct(copied, f"oracle={box}").returncode == 0
    assert json.loads((copied / "reconstruction.json").read_text())["mesh"]["watertight"]


@pytest.mark.parametrize(
    ("awaited", "number"),
    [pytest.param("settings.json", signal.SIGTERM, marks=pytest.mark.slow), ("field.npz", signal.SIGKILL)],
)
def test_a_killed_run_continues_to_the_same_mesh(finished, box, tmp_path, awaited, number):
    output = tmp_path / "out"
    run = Started("inference.reconstruct", f"oracle={box}", f"output={output}", *TINY)
    while not (output / awaited).exists():
        assert run.poll() is None
        time.sleep(0.02)
    run.send_signal(number)
    _, errors = run.communicate()
    assert run.returncode == (128 + number if number == signal.SIGTERM else -number)
    assert "Traceback" not in errors
    assert not (output / "reconstruction.json").exists()
    if number == signal.SIGTERM:
        assert not [path for path in output.rglob("*") if path.name.endswith(".part") or path.name.startswith(".")]
    (output / "mesh.glb.01234567.part").write_bytes(b"of a killed writer")
    assert reconstruct(output, f"oracle={box}").returncode == 0
    assert (output / "mesh.glb").read_bytes() == (finished / "mesh.glb").read_bytes()
    assert {path.name for path in output.iterdir()} - {"preview.png"} == OUTPUTS


def test_a_folder_of_oracles_ends_with_a_table(finished, box, tmp_path):
    meshes, output = tmp_path / "meshes", tmp_path / "out"
    meshes.mkdir()
    (meshes / "box.glb").write_bytes(box.read_bytes())
    (meshes / "broken.glb").write_bytes(box.read_bytes()[:400])
    trimesh.creation.icosphere(2).export(meshes / "sphere.ply")
    (meshes / "notes.txt").write_text("no mesh")
    done = reconstruct(output, f"oracle={meshes}")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    rows = {row["object"]: row for row in csv.DictReader((output / "objects.csv").open())}
    assert list(rows) == ["box", "broken", "sphere"] and str(meshes / "broken.glb") in rows["broken"]["reason"]
    assert (output / "box/mesh.glb").read_bytes() == (finished / "mesh.glb").read_bytes()
    assert not (output / "broken").exists()
    ious = [float(rows[name]["iou"]) for name in ("box", "sphere")]
    mean, worst = (re.search(rf"{name} of 2 +(\S+)", done.stdout)[1] for name in ("mean", "worst"))
    assert float(mean) == pytest.approx(np.mean(ious), abs=1e-3)
    assert float(worst) == pytest.approx(min(ious), abs=1e-3)


def refused(output, *words):
    """Assert that the command refuses its input in one sentence, and writes nothing; return the sentence."""
    before = contents(output) if output.exists() else None
    done = reconstruct(output, *words)
    assert done.returncode == 2, (words, done.stderr)
    sentences = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(sentences) == 1 and "Traceback" not in done.stderr, done.stderr
    assert (contents(output) if output.exists() else None) == before
    return sentences[0]


def test_bad_inputs_are_refused(box, tmp_path):
    for words, name in [
        ([], "image"),
        (["prompt=' '"], "prompt"),
        ([f"oracle={box}", "prompt=a chair"], "prompt"),
        ([f"oracle={tmp_path / 'none.glb'}"], "none.glb"),
        ([f"image={tmp_path / 'none.png'}"], "none.png"),
    ]:
        assert name in refused(tmp_path / "out", *words)


@pytest.mark.slow
def test_bad_options_are_refused(box, tmp_path):
    for words, name in [
        ([f"oracle={box}", "height=12"], "height=12"),
        ([f"oracle={box}", "format=fbx"], "format"),
        ([f"oracle={box}", "method=nerf"], "method"),
        ([f"oracle={box}", "elevation=high"], "elevation"),
        ([f"oracle={box}", "views.epochs=[1,2]"], "views.nodes"),
    ]:
        assert name in refused(tmp_path / "out", *words)


def test_bad_files_are_refused(box, folder, copied, tmp_path):
    output = tmp_path / "new"
    corrupt, empty = tmp_path / "corrupt.glb", tmp_path / "empty"
    corrupt.write_bytes(box.read_bytes()[:500])
    empty.mkdir()
    assert "corrupt.glb" in refused(output, f"oracle={corrupt}")
    assert "empty" in refused(output, f"oracle={empty}")
    blank = tmp_path / "blank.png"
    Image.new("RGB", (64, 64), "white").save(blank)
    assert "blank.png" in refused(output, f"image={blank}", f"checkpoint={folder}")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "report.html").write_text("mine")
    assert "report.html" in refused(foreign, f"oracle={box}")
    assert "mesh.glb" in refused(copied, f"oracle={copied / 'mesh.glb'}")
    (copied / "reconstruction.json").unlink()
    damaged = (copied / "field.npz").read_bytes()
    (copied / "field.npz").write_bytes(damaged[: len(damaged) // 2])
    assert "field.npz" in refused(copied, f"oracle={box}")
    table = tmp_path / "table"
    table.mkdir()
    (table / "objects.csv").write_text("mine")
    assert "objects.csv" in refused(table, f"oracle={box.parent}")


def test_a_picture_is_reconstructed_with_the_shipped_model(finished, tmp_path):
    output = tmp_path / "out"
    words = [
        f"image={finished / 'input.png'}", "cutout=none", "elevation=20", "sampling.steps=3",
        "views.count=3", "views.guesses=2", "views.rounds=1",
    ]  # fmt: skip
    done = reconstruct(output, *words)
    assert done.returncode == 0, done.stderr
    record = json.loads((output / "reconstruction.json").read_text())
    assert record["mesh"]["watertight"] and record["truth"] == {} and record["elevation_degrees"] == 20
    page = (output / "report.html").read_text()
    assert "Seed 0:" in page and "Seed 1:" in page and "http" not in re.sub('data:[^"]*', "", page)
    assert len(page) < 3e6
    before = times(output)
    assert reconstruct(output, *words, "suffix=''", "resolution=64").returncode == 0
    assert times(output) == before
    done = reconstruct(output, *words, "texture=vertex")
    assert done.returncode == 0 and times(output)["field.npz"] == before["field.npz"], done.stderr


@pytest.mark.slow  # half a minute
def test_a_prompt_is_reconstructed(pipeline, finished, tmp_path):
    output = tmp_path / "out"
    words = [
        "prompt=a toy", f"text_to_image={pipeline}", "text_steps=2", "cutout=none", "fill=0", "elevation=20",
        "sampling.steps=3", "views.count=3", "views.guesses=1", "views.rounds=0",
    ]  # fmt: skip
    done = reconstruct(output, *words)  # the pipeline's weights are random: its picture is noise
    assert done.returncode == 2 and "contradict" in done.stderr.splitlines()[-1]
    names = {path.name for path in output.iterdir()}
    assert names - {path.name for path in output.glob("state-*.npz")} == {"prompt.png", "prompt.json", "settings.json"}
    assert len(names) == 4
    shutil.copy(finished / "input.png", output / "prompt.png")
    assert reconstruct(output, *words).returncode == 0
    assert OUTPUTS | {"prompt.png", "prompt.json"} <= {path.name for path in output.iterdir()}
    before = times(output)
    assert reconstruct(output, *words).returncode == 0 and times(output) == before
