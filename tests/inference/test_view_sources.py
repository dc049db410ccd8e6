"""Views of benchmarks are read from shards, the original's layout, pictures without cameras, and RTMV's files."""

import io
import json
import math
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import OpenEXR
import pytest
from PIL import Image

from conf.options import UserError
from inference.evaluation.benchmarks.benchmark import Background, Benchmark
from inference.evaluation.benchmarks.camera_check import cameras_match, known_cameras
from inference.evaluation.benchmarks.manifest import read_benchmark
from inference.evaluation.benchmarks.rtmv import linear_to_srgb
from inference.evaluation.benchmarks.view_sources import open_views
from inference.evaluation.benchmarks.views import DamagedViews, ObjectViews, decode_view
from pipeline.samples import npy_array, npy_bytes
from pipeline.shards import ObjectRecord, write_shard
from rendering.cameras import FOV_DEGREES, camera_centre, project
from tests.support.dots import sample_of_dots, views_of_dots, write_dots
from tests.support.released import files_of, pictures, png, write_folder
from training.model.picture import decode

FOLDER, SYNCDREAMER, RTMV = (read_benchmark(name) for name in ("folder", "syncdreamer", "zero123-rtmv"))


def read(root, *benchmarks: Benchmark) -> dict[str, ObjectViews]:
    source = open_views(str(root), benchmarks or (FOLDER,))
    return {views.uid: views for views in source.read(source.uids)}


def refusal(root, *benchmarks: Benchmark) -> str:
    with pytest.raises(UserError) as refused:
        read(root, *benchmarks)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_shards_give_their_pictures_and_cameras(tmp_path):
    uids = write_dots(tmp_path, 6, per_shard=4, views=3)
    source = open_views(str(tmp_path), (FOLDER,))
    assert source.layout == "view shards" and source.uids == tuple(uids)
    (views,) = source.read({uids[5]})
    expected, cameras = views_of_dots(5, views=3)
    assert views.uid == uids[5] and np.array_equal(views.cameras, cameras) and len(views.pictures) == 3
    assert np.array_equal(decode_view(views.pictures[2], FOLDER, 16), decode(views.pictures[2], 16))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(views.pictures[1]))), np.asarray(expected[1]))


@pytest.mark.parametrize("damage", ["missing", "unreadable", "one too few"])
def test_a_shard_with_wrong_cameras_names_its_object(tmp_path, damage):
    sample = sample_of_dots(0, views=3)
    wrong = {"unreadable": b"text", "one too few": npy_bytes(npy_array(sample["cameras.npy"])[1:])}
    sample["cameras.npy"] = wrong.get(damage, b"")
    if damage == "missing":
        del sample["cameras.npy"]
    write_shard(str(tmp_path), "views-000000", [("wrong", sample)], [ObjectRecord("wrong", "ok")])
    assert "object wrong" in refusal(tmp_path)


@pytest.mark.parametrize("below", ["", "model", "render_mvs/model", "render_mvs_25/model"])
def test_the_original_layout_gives_its_pixels_and_cameras(tmp_path, below):
    for seed, uid in enumerate(("b", "a")):
        write_folder(tmp_path / uid / below, {"": files_of(seed)})
    (tmp_path / "meshes").mkdir()
    (tmp_path / "valid_paths.json").write_text("[]")
    found = read(tmp_path)
    assert list(found) == ["a", "b"]
    assert cameras_match(FOLDER, found["a"].cameras) == "" and found["a"].cameras.dtype == np.float64
    assert np.array_equal(found["a"].cameras[2], np.load(tmp_path / "a" / below / "002.npy"))
    for view, pixels in enumerate(pictures(1)):
        alpha = pixels[..., 3:] / 255
        composited = pixels[..., :3] * alpha + 255 * (1 - alpha)
        assert np.abs(decode_view(found["a"].pictures[view], FOLDER, 16) - composited).max() <= 1
        original = np.where(pixels[..., 3:] == 0, 255, pixels[..., :3])
        drawn = decode_view(found["a"].pictures[view], replace(FOLDER, background=Background.original), 16)
        assert np.array_equal(drawn, original)


def test_a_picture_is_reduced_with_the_filter_of_the_benchmark():
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[..., 3] = 255
    pixels[0, 0, :3] = 200  # of the first 2 × 2 pixels
    contents = png(pixels)
    assert decode_view(contents, replace(FOLDER, resize="box"), 2)[0, 0].tolist() == [50, 50, 50]
    assert decode_view(contents, replace(FOLDER, resize="nearest"), 2)[0, 0].tolist() in ([0, 0, 0], [200, 200, 200])


def jpeg(side: int) -> bytes:
    contents = io.BytesIO()
    Image.new("RGB", (side, side)).save(contents, "JPEG")
    return contents.getvalue()


def png16(side: int) -> bytes:
    contents = io.BytesIO()
    Image.fromarray(np.full((side, side), 1000, np.uint16)).save(contents, "PNG")
    return contents.getvalue()


WRONG_PICTURES = {
    "not square": png(np.zeros((4, 6, 4), np.uint8)),
    "jpeg": jpeg(16),
    "sixteen bits": png16(16),
    "nothing": b"",
    "text": b"hello",
}


@pytest.mark.parametrize("contents", WRONG_PICTURES.values(), ids=WRONG_PICTURES.keys())
def test_a_wrong_picture_names_its_object(tmp_path, contents):
    write_folder(tmp_path, {"good": files_of(0), "wrong": files_of(1) | {"001.png": contents}})
    sentence = refusal(tmp_path)
    assert "object wrong" in sentence and "001.png" in sentence
    with pytest.raises((OSError, ValueError, SyntaxError)):
        decode_view(contents, FOLDER, 16)


class Harmful:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize(
    ("name", "contents"),
    [
        ("001.npy", None),
        ("003.npy", npy_bytes(np.eye(4)[:3])),
        ("004.png", files_of(0)["000.png"]),
        ("000.npy", npy_bytes(np.eye(3))),
        ("000.npy", b"\x93NUMPY"),
        ("000.npy", "harmful"),
    ],
)
def test_wrong_cameras_or_numbers_name_their_object(tmp_path, name, contents):
    files = files_of(1)
    if contents is None:
        del files[name]
    elif contents == "harmful":
        buffer = io.BytesIO()
        np.save(buffer, np.array([Harmful(tmp_path / "executed")], dtype=object), allow_pickle=True)
        files[name] = buffer.getvalue()
    else:
        files[name] = contents
    write_folder(tmp_path / "views", {"wrong": files})
    assert "object wrong" in refusal(tmp_path / "views")
    assert not (tmp_path / "executed").exists()


def test_pictures_without_cameras_get_those_of_the_benchmark_and_no_pickle_is_opened(tmp_path):
    files = {name: contents for name, contents in files_of(0, views=16).items() if name.endswith(".png")}
    root = write_folder(tmp_path / "views", {"teapot": files})
    before = open_views(str(root), (SYNCDREAMER,))
    (root / "teapot" / "meta.pkl").write_bytes(pickle.dumps(Harmful(tmp_path / "executed")))
    source = open_views(str(root), (FOLDER, SYNCDREAMER))
    (views,) = source.read(source.uids)
    assert source.layout == "pictures" and source.listing == before.listing
    assert np.array_equal(views.cameras, known_cameras(SYNCDREAMER)) and len(views.pictures) == 16
    assert not (tmp_path / "executed").exists()
    assert "without cameras" in refusal(root, FOLDER)
    (root / "teapot" / "015.png").unlink()
    assert "15 pictures" in refusal(root, SYNCDREAMER)


def test_the_listing_follows_the_contents_and_not_the_place(tmp_path):
    root = write_folder(tmp_path / "views", {"a": files_of(0), "b": files_of(1)})
    listing = open_views(str(root), (FOLDER,)).listing
    moved = shutil.copytree(root, tmp_path / "moved")
    assert open_views(str(moved), (FOLDER,)).listing == listing
    pixels = pictures(0)[0]
    pixels[0, 0] ^= 1
    (moved / "a" / "000.png").write_bytes(png(pixels))
    assert open_views(str(moved), (FOLDER,)).listing != listing
    (root / "b" / "001.npy").write_bytes(files_of(2)["001.npy"])
    assert open_views(str(root), (FOLDER,)).listing != listing


def test_a_folder_of_no_known_layout_is_refused(tmp_path):
    assert "view shards" in refusal(tmp_path) and "no such folder" in refusal(tmp_path / "nowhere")
    write_folder(tmp_path, {"a chair": files_of(0)})
    assert "'a chair'" in refusal(tmp_path)


# RTMV: a scene of three balls, drawn in the convention of its files, which is written here a second time.

CENTRE, SIZE = np.array([2.0, -1.0, 5.0]), 4.0
COLOURS = np.eye(3, dtype=np.float32)


def balls() -> np.ndarray:
    return CENTRE + SIZE * np.array([[0.3, 0.1, 0.2], [-0.2, 0.3, -0.1], [0.0, -0.3, 0.1]])


def camera_to_world(eye: np.ndarray, at: np.ndarray) -> np.ndarray:
    backward = (eye - at) / np.linalg.norm(eye - at)
    right = np.cross([0, 0, 1], backward)
    right /= np.linalg.norm(right)
    matrix = np.eye(4)
    matrix[:3] = np.stack([right, np.cross(backward, right), backward, eye], axis=1)
    return matrix


def frame(number: int, side: int) -> tuple[dict, np.ndarray]:
    """Return the JSON and the linear RGBA picture of a frame."""
    angle = 0.7 * number
    eye = CENTRE + SIZE * 1.9 * np.array([math.cos(angle) * 0.8, math.sin(angle) * 0.8, 0.6])
    at = CENTRE + np.array([0.2, 0.0, -0.1])
    matrix, focal = camera_to_world(eye, at), side * 35 / 32
    rows, columns = np.mgrid[:side, :side] + 0.5
    picture = np.zeros((side, side, 4), np.float32)
    for ball, colour in zip(balls(), COLOURS, strict=True):
        x, y, z = np.linalg.inv(matrix)[:3] @ [*ball, 1]
        inside = np.hypot(columns - side / 2 - focal * x / -z, rows - side / 2 + focal * y / -z) < side / 40
        picture[inside] = [*colour, 1]
    camera = {
        "width": side,
        "height": side,
        "cam2world": matrix.T.tolist(),
        "camera_look_at": {"eye": eye.tolist(), "at": at.tolist(), "up": [0, 0, 1]},
        "intrinsics": {"fx": focal, "fy": focal, "cx": side / 2, "cy": side / 2},
        "scene_center_3d_box": CENTRE.tolist(),
        "scene_min_3d_box": (CENTRE - [SIZE / 2, 1, 1]).tolist(),
        "scene_max_3d_box": (CENTRE + [SIZE / 2, 1, 1]).tolist(),
    }
    return {"camera_data": camera, "objects": []}, picture


def write_exr(path: Path, picture: np.ndarray, channels: str = "RGBA", **header) -> None:
    planes = {name: np.ascontiguousarray(picture[..., i].astype(np.float16)) for i, name in enumerate(channels)}
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage, **header}
    with OpenEXR.File(header, planes) as file:
        file.write(str(path))


def write_scene(folder: Path, frames: int, side: int = 64) -> Path:
    folder.mkdir(parents=True)
    for number in range(frames):
        data, picture = frame(number, side)
        (folder / f"{number:05d}.json").write_text(json.dumps(data))
        write_exr(folder / f"{number:05d}.exr", picture)
    return folder


def test_points_of_an_rtmv_scene_lie_where_its_cameras_project_them(tmp_path):
    write_scene(tmp_path / "00000", 17, side=512)
    source = open_views(str(tmp_path), (RTMV,))
    (views,) = source.read(source.uids)
    assert source.layout == "RTMV" and cameras_match(RTMV, views.cameras) == ""
    points = (balls() - CENTRE) / SIZE
    distances = np.linalg.norm(camera_centre(views.cameras), axis=1)
    assert np.allclose(distances, 1.9)
    found = 0
    for contents, camera in zip(views.pictures, views.cameras, strict=True):
        pixels = np.asarray(Image.open(io.BytesIO(contents)).convert("RGBA"))
        assert pixels.shape == (256, 256, 4)
        for point, colour in zip(points, COLOURS, strict=True):
            shown = (pixels[..., :3] == 255 * colour).all(axis=2) & (pixels[..., 3] == 255)
            if shown.sum() > 105:  # in front of other balls; the inside of a disk of 128 pixels
                found += 1
                rows, columns = np.nonzero(shown)
                centre = project(point[None], camera, 256, FOV_DEGREES)[0]
                assert np.allclose(centre, [columns.mean() + 0.5, rows.mean() + 0.5], atol=0.3)  # edges are not counted
    assert found >= 40  # of 51


def test_colours_of_an_rtmv_picture_are_reduced_in_linear_light(tmp_path):
    folder = write_scene(tmp_path / "scene", 1, side=16)
    picture = np.zeros((16, 16, 4), np.float32)
    picture[::2, ::2, :3] = picture[1::2, 1::2, :3] = 1
    picture[..., 3] = 1
    picture[:2, :2] = [[[9, 0, 0, 1], [0, 9, 0, 0]], [[0, 9, 0, 0], [0, 9, 0, 0]]]
    picture[2, 2:4, 0] = [np.nan, 1]
    write_exr(folder / "00000.exr", picture)
    (views,) = read(tmp_path, replace(FOLDER, resolution=8)).values()
    pixels = np.asarray(Image.open(io.BytesIO(views.pictures[0])))
    # Half of the light is 188 of 255 in sRGB (0.7354). Of the first four pixels one is opaque, and it alone has colour.
    assert pixels[4, 4].tolist() == [188, 188, 188, 255]
    assert pixels[0, 0].tolist() == [255, 0, 0, 64]
    assert pixels[1, 1, 0] == 188
    (full,) = read(tmp_path, replace(FOLDER, resolution=32)).values()
    assert Image.open(io.BytesIO(full.pictures[0])).size == (16, 16)
    assert np.allclose(linear_to_srgb(np.array([0, 0.0031308, 0.2140411, 1])), [0, 0.04045, 0.5, 1], atol=1e-5)


def test_a_picture_without_alpha_is_opaque(tmp_path):
    folder = write_scene(tmp_path / "scene", 1, side=16)
    write_exr(folder / "00000.exr", np.ones((16, 16, 3)), "RGB")
    (views,) = read(tmp_path).values()
    assert (decode_view(views.pictures[0], FOLDER, 16) == 255).all()


def test_only_the_frames_of_the_benchmark_are_read(tmp_path):
    folder = write_scene(tmp_path / "scene", 18, side=16)
    (folder / "00017.exr").write_bytes(b"damaged")
    assert len(read(tmp_path, RTMV)["scene"].pictures) == 17
    assert "00017.exr" in refusal(tmp_path, RTMV, FOLDER)
    (folder / "00016.json").unlink()
    assert "00016.json is missing" in refusal(tmp_path, RTMV)
    (folder / "00016.exr").unlink()
    assert "at least 17" in cameras_match(RTMV, read(tmp_path, RTMV)["scene"].cameras)


def changed(**camera) -> bytes:
    data, _ = frame(0, 16)
    data["camera_data"] |= camera
    return json.dumps(data).encode()


@pytest.mark.parametrize(
    ("contents", "named"),
    [
        (changed(cam2world=camera_to_world(np.array([9.0, 0, 0]), CENTRE).tolist()), "column by column"),
        (changed(cam2world=(2 * np.eye(4)).tolist()), "rotation"),
        (changed(cam2world=[[1, 2], [3]]), "00000.json"),
        (changed(cam2world=None), "00000.json"),
        (changed(cam2world=[[10**400] * 4] * 4), "00000.json"),
        (changed(camera_look_at={"eye": [10**400] * 3, "at": [0, 0, 0]}), "camera_look_at"),
        (changed(camera_look_at={"eye": [0, 0, 0], "at": [1, 0, 0]}), "another direction"),
        (changed(camera_look_at={"eye": [0, 0, 0]}), "at"),
        (changed(scene_max_3d_box=(CENTRE - 9).tolist()), "no size"),
        (changed(scene_center_3d_box=[0, 0, float("nan")]), "scene_center_3d_box"),
        (b'{"camera_data": {}}', "cam2world"),
        (b"[]", "00000.json"),
        (b"{", "00000.json"),
        (b"[" * 100_000, "00000.json"),
        (b"\xff\xfe", "00000.json"),
    ],
)
def test_a_wrong_rtmv_camera_names_its_file(tmp_path, contents, named):
    folder = write_scene(tmp_path / "scene", 1, side=16)
    (folder / "00000.json").write_bytes(contents)
    assert named in refusal(tmp_path) and "object scene" in refusal(tmp_path)


def test_a_wrong_rtmv_picture_names_its_file(tmp_path):
    folder = write_scene(tmp_path / "scene", 1, side=64)
    path = folder / "00000.exr"
    good = path.read_bytes()
    wrong = {
        "text": b"hello",
        "empty": b"",
        "cut": good[: len(good) // 2],
        "zeros": good[:500] + bytes(len(good) - 500),
    }
    for contents in wrong.values():
        path.write_bytes(contents)
        assert "00000.exr" in refusal(tmp_path)
    write_exr(path, np.ones((8, 8, 2)), "RG")
    assert "has no 'B'" in refusal(tmp_path)
    write_exr(path, np.ones((8, 6, 4)))
    assert "6 × 8 pixels" in refusal(tmp_path)
    write_exr(path, np.ones((8, 8, 9)), "RGBAVWXYZ")
    assert "9 channels" in refusal(tmp_path)
    window = (np.array([0, 0], np.int32), np.array([9, 9], np.int32))
    write_exr(path, np.ones((8, 8, 4)), displayWindow=window)
    assert "display window" in refusal(tmp_path)


def test_the_error_of_an_object_can_be_pickled():
    error = DamagedViews("views", "teapot", "001.png is not a PNG file")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
