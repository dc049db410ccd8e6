"""Benchmarks of the project are valid, their renders have their cameras, and wrong files and cameras are refused."""

import json
import math

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from conf.command import register
from conf.options import UserError
from inference.evaluation.benchmarks.benchmark import (
    MESH_SCORES,
    Average,
    Background,
    Benchmark,
    CameraKind,
    Cameras,
)
from inference.evaluation.benchmarks.camera_check import cameras_match, known_cameras, require_cameras
from inference.evaluation.benchmarks.manifest import benchmark_names, read_benchmark
from inference.evaluation.benchmarks.objects import benchmark_objects, objects_match
from inference.evaluation.meshes.definitions import SCORES
from pipeline.config import RenderConfig
from pipeline.sources import SOURCES
from rendering.cameras import camera_centre, look_at_origin, orbit, project, sample_zero123
from rendering.settings import RenderSettings, sample_cameras
from tests.support.entries import CONF

RENDERED = ("eschernet", "free3d", "syncdreamer", "zero123-gso")


def test_the_project_has_the_benchmarks_of_the_literature_and_one_for_own_views():
    assert benchmark_names() == ("eschernet", "folder", "free3d", "syncdreamer", "zero123-gso", "zero123-rtmv")
    for name in benchmark_names():
        benchmark = read_benchmark(name)
        assert benchmark.name == name and benchmark.source
        if name != "folder":
            assert benchmark.unknown and benchmark.input == 0 and benchmark.resolution == 256


def rendered(name: str) -> RenderSettings:
    register(RenderConfig, "render", SOURCES)
    words = [f"+experiment={name}", "objects=folder", "objects.path=x"]
    with initialize_config_dir(str(CONF / "pipeline"), version_base="1.3"):
        return OmegaConf.to_object(compose("render", words)).renderer


@pytest.mark.parametrize("name", RENDERED)
def test_the_render_command_gives_the_cameras_of_the_benchmark(name):
    benchmark, settings = read_benchmark(name), rendered(name)
    assert benchmark.cameras.experiment == name
    assert benchmark.resolution <= settings.resolution
    for seed in range(5):
        assert cameras_match(benchmark, sample_cameras(settings, np.random.default_rng(seed))) == ""


def test_syncdreamer_is_a_circle_at_30_degrees_with_a_focal_length_of_280_pixels():
    cameras = known_cameras(read_benchmark("syncdreamer"))
    assert cameras.shape == (16, 3, 4)
    # az_el_to_points of the original's blender_script.py, times its distance
    azimuths = np.arange(16) / 16 * 2 * np.pi
    points = np.stack([np.cos(azimuths), np.sin(azimuths), np.full(16, math.tan(math.radians(30)))], axis=1)
    assert np.allclose(camera_centre(cameras), 1.5 * points * math.cos(math.radians(30)))
    # a point one unit to the right of the axis, at the distance of one unit
    camera = np.concatenate([np.eye(3), [[0.0], [0.0], [0.0]]], axis=1)
    assert np.allclose(project([[0.25, 0.0, -1.0]], camera, 256), [[128 + 280 * 0.25, 128]])


def test_eschernet_wants_its_input_at_the_height_of_the_script():
    benchmark = read_benchmark("eschernet")
    cameras = sample_cameras(rendered("eschernet"), np.random.default_rng(0))
    assert 0.9 < camera_centre(cameras)[0, 2] < 1.1
    assert benchmark.targets == tuple(range(10, 25)) and benchmark.background is Background.original
    assert "of the input" in cameras_match(benchmark, np.roll(cameras, -1, axis=0))


def test_published_scores_have_the_metrics_of_the_protocol():
    syncdreamer, gso = read_benchmark("syncdreamer"), read_benchmark("zero123-gso")
    scores = {published.method: published.scores for published in syncdreamer.published}
    assert scores["Zero123"] == {"psnr_db": 18.93, "ssim_measured_range": 0.779, "lpips_vgg": 0.166}
    assert syncdreamer.average is Average.pictures and len(syncdreamer.objects) == 30
    assert syncdreamer.meshes.truth_yaw_degrees["sorter"] == 112.5
    assert "bell" not in syncdreamer.meshes.truth_yaw_degrees
    (own,) = [published.scores for published in gso.published if published.method == "Zero-1-to-3"]
    assert own["psnr_db"] == 18.378 and own["lpips_unknown"] == 0.088 and "lpips_alex" not in own


def test_the_names_of_scores_are_those_that_are_computed():
    assert set(MESH_SCORES) <= {score.name for score in SCORES}


def write(path, **fields):
    path.write_text(json.dumps({"name": "own", "title": "Own", "source": "here"} | fields))
    return str(path)


def test_an_own_file_is_read(tmp_path):
    cameras = {"kind": "orbit", "views": 8, "radius": [2, 2], "elevation": 0}
    benchmark = read_benchmark(
        write(tmp_path / "own.json", cameras=cameras, input=0, targets=[1, 7], sampling={"steps": 20})
    )
    assert benchmark.cameras == Cameras(CameraKind.orbit, 8, (2.0, 2.0), 0.0)
    assert benchmark.targets == (1, 7) and benchmark.sampling == {"steps": 20}
    assert read_benchmark(write(tmp_path / "own.json", cameras={"experiment": "syncdreamer"})).cameras.views == 16


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"metric": ["psnr_db"]}, "metric"),
        ({"metrics": ["psnr"]}, "psnr_db"),
        ({"metrics": "psnr_db"}, "metrics"),
        ({"name": "../own"}, "name"),
        ({"title": 3}, "title"),
        ({"input": 0}, "targets"),
        ({"input": 0, "targets": [1, 1]}, "targets"),
        ({"input": 0, "targets": [-1]}, "targets"),
        ({"input": 0, "targets": [16], "cameras": {"experiment": "syncdreamer"}}, "16"),
        ({"resolution": 4}, "resolution"),
        ({"resize": "sharp"}, "resize"),
        ({"background": "black"}, "background"),
        ({"sampling": {"cfg": 3.0}}, "cfg"),
        ({"sampling": {"steps": 0}}, "sampling.steps"),
        ({"cameras": {"kind": "spiral"}}, "cameras.kind"),
        ({"cameras": {"kind": "orbit", "views": 4}}, "elevation"),
        ({"cameras": {"radius": [2.0, 1.0]}}, "radius"),
        ({"cameras": {"experiment": "nowhere"}}, "nowhere"),
        ({"cameras": {"experiment": "references"}}, "references"),
        ({"cameras": {"experiment": "../renderer/fast"}}, "experiment"),
        ({"published": [{"method": "x", "scores": {"lpips": 0.1}, "source": "y"}]}, "lpips"),
        ({"published": [{"method": "x", "scores": {"psnr_db": 18.0}}]}, "source"),
        ({"meshes": {"published": [{"method": "x", "scores": {"psnr_db": 18.0}, "source": "y"}]}}, "chamfer"),
        ({"meshes": {"alignment": "pca"}}, "alignment"),
        ({"meshes": {"scores": ["emd"]}}, "emd"),
    ],
)
def test_a_wrong_file_is_one_sentence_that_names_the_field(tmp_path, fields, named):
    path = write(tmp_path / "own.json", **fields)
    with pytest.raises(UserError) as refused:
        read_benchmark(path)
    assert named in str(refused.value) and path in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("contents", [b"{", b"[]", b"\xff", b"", b"[" * 100_000, b" " * 2_000_000])
def test_a_damaged_file_is_refused(tmp_path, contents):
    (tmp_path / "own.json").write_bytes(contents)
    with pytest.raises(UserError, match=r"own\.json"):
        read_benchmark(str(tmp_path / "own.json"))


@pytest.mark.parametrize("name", ["gso", "nowhere.json", "", "../benchmarks/folder"])
def test_an_unknown_benchmark_is_refused(name):
    with pytest.raises(UserError, match="benchmark="):
        read_benchmark(name)


def wrong_cameras() -> dict[str, np.ndarray]:
    right = orbit(16, math.radians(60), 1.5)
    off, rolled, mirrored = right.copy(), right.copy(), right.copy()
    off[3, 0, 3] += 0.1  # looks past the origin
    turn = np.array([[math.cos(0.1), -math.sin(0.1), 0], [math.sin(0.1), math.cos(0.1), 0], [0, 0, 1]])
    rolled[3] = turn @ rolled[3]
    mirrored[3, 0] *= -1
    return {
        "views": right[:12],
        "at least": right[:0],
        "distance": orbit(16, math.radians(60), 1.6),
        "elevation": orbit(16, math.radians(65), 1.5),
        "counter-clockwise": right[::-1],
        "past": off,
        "tilted": rolled,
        "rotation": mirrored,
        "finite": right * np.nan,
        "shape": right[0],
    }


@pytest.mark.parametrize(("reason", "cameras"), wrong_cameras().items())
def test_cameras_that_do_not_match_are_one_sentence(reason, cameras):
    benchmark = read_benchmark("zero123-gso" if reason == "at least" else "syncdreamer")
    assert reason in cameras_match(benchmark, cameras)
    with pytest.raises(UserError, match=f"cameras of teapot do not match.*experiment={benchmark.name}"):
        require_cameras(benchmark, cameras, "teapot")


def test_an_orbit_may_begin_at_any_azimuth_and_random_views_may_be_more_than_needed():
    start = np.array([[0.6, -0.8, 0], [0.8, 0.6, 0], [0, 0, 1]])
    cameras = orbit(16, math.radians(60), 1.5)
    turned = np.concatenate([cameras[:, :, :3] @ start.T, cameras[:, :, 3:]], axis=2)
    require_cameras(read_benchmark("syncdreamer"), turned, "teapot")
    many = sample_zero123(np.random.default_rng(0), 25)
    require_cameras(read_benchmark("zero123-gso"), many, "teapot")
    require_cameras(read_benchmark("free3d"), many, "teapot")
    require_cameras(read_benchmark("folder"), many[:1], "teapot")
    assert "distance" in cameras_match(read_benchmark("free3d"), sample_zero123(np.random.default_rng(0), 4, (3, 4)))


def test_given_cameras_may_look_anywhere():
    rtmv = read_benchmark("zero123-rtmv")
    cameras = np.repeat(look_at_origin([5.0, 0, 0])[None], 17, axis=0)
    cameras[:, :, 3] += 1
    assert cameras_match(rtmv, cameras) == "" and "at least 17" in cameras_match(rtmv, cameras[:16])


def test_objects_are_those_of_the_benchmark_if_the_folder_has_them():
    benchmark = Benchmark("own", "Own", "here", objects=("b", "a"))
    assert benchmark_objects(benchmark, {"c", "a", "b"}) == ("a", "b") and objects_match(benchmark, "abc") == ""
    assert benchmark_objects(benchmark, {"c", "d"}) == ("c", "d") and "a, b" in objects_match(benchmark, {"c", "d"})
    first = Benchmark("own", "Own", "here", max_objects=2)
    assert benchmark_objects(first, ["10", "02", "01"]) == ("01", "02") and objects_match(first, "ab") == ""
    assert "1 objects" in objects_match(first, "a")
    with pytest.raises(UserError, match="no object"):
        benchmark_objects(first, [])
