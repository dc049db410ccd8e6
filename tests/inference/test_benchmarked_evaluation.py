"""One run under several benchmarks: fixed views, pictures of other programs, samples, and an oracle."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from trimesh.creation import box

from conf.options import UserError
from inference.config import Sampling
from inference.evaluation.benchmarks.manifest import benchmark_names, read_benchmark
from inference.evaluation.config import EvaluateConfig
from inference.evaluation.evaluation import evaluate
from inference.evaluation.methods.method import Pixels
from inference.evaluation.methods.model import predict_views
from inference.evaluation.methods.predictions import Predictor, Request
from inference.evaluation.methods.sjc_i import sjc_views, unposed_guide
from inference.meshes.ray_casting import RayCaster
from inference.meshes.read_mesh import read_mesh
from inference.novel_view import NovelView
from inference.preprocess import Prepared
from inference.reconstruction.guidance.model_guide import ModelGuide
from inference.reconstruction.sjc.settings import SjcOptions
from pipeline.samples import npy_bytes
from pipeline.shards import ObjectRecord, write_shard
from rendering.cameras import camera_centre, look_at_origin, orbit, spherical_to_cartesian
from tests.support.dots import views_of_dots, webp, write_dots
from training.model.config import Background, PoseVector
from training.model.picture import on_white

OBJECTS, SIDE, VIEWS = 3, 32, 5
RING = {
    "name": "ring",
    "title": "Ring",
    "source": "a test",
    "cameras": {"kind": "orbit", "views": VIEWS, "radius": [1.5, 1.5], "elevation": 30.0},
    "input": 0,
    "targets": [1, 2, 3],
    "resolution": SIDE,
    "sampling": {"steps": 50},
    "metrics": ["psnr_db"],
    "published": [{"method": "theirs", "scores": {"psnr_db": 12.5}, "source": "table 1"}],
}


def white(picture: Image.Image) -> Pixels:
    return np.asarray(on_white(picture, Background.composite))


def oracle(request: Request) -> Pixels:
    pictures, _ = views_of_dots(
        int(request.uid[-3:]), resolution=SIDE, cameras=look_at_origin(request.target_centre)[None]
    )
    return white(pictures[0])


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("benchmarked")
    write_dots(root / "views", OBJECTS, cameras=orbit(VIEWS, math.radians(60), 1.5))
    write_dots(root / "random", OBJECTS, views=4)
    (root / "ring.json").write_text(json.dumps(RING))
    (root / "two.json").write_text(json.dumps(RING | {"name": "two", "targets": [2, 4], "metrics": ["ssim"]}))
    return root


def config(data: Path, output: Path, **options) -> EvaluateConfig:
    given = {
        "views": [f"{data}/views"],
        "benchmark": [f"{data}/ring.json"],
        "methods": ["model"],
        "output": str(output),
    }
    return EvaluateConfig(**{**given, **options})


def predictor(one, side: int = SIDE):
    return lambda config: Predictor(lambda requests: np.stack([one(r) for r in requests]), side, "known", 5)


def figure(metrics, method: str, metric: str, **others):
    keys = {"method": method, "metric": metric, "minus": "", "by": "", **others}
    (found,) = [f for f in metrics["figures"] if all(f[name] == value for name, value in keys.items())]
    return found


def rows(output: Path, name: str) -> list[dict[str, str]]:
    with open(output / name, newline="") as file:
        return list(csv.DictReader(file))


def test_views_are_drawn_once_for_all_benchmarks_and_scored_under_each(data, tmp_path):
    requests = []
    given = config(data, tmp_path / "scores", benchmark=[f"{data}/ring.json", f"{data}/two.json"])
    metrics = evaluate(given, predictor(lambda request: requests.append(request) or oracle(request)))
    assert len(requests) == OBJECTS * 4  # targets 1, 2, 3 and 4; 2 is common
    assert figure(metrics, "model", "psnr_db")["views"] == OBJECTS * 3
    assert figure(metrics, "model", "ssim")["views"] == OBJECTS * 2
    assert {(row["benchmark"], row["target"]) for row in rows(tmp_path / "scores", "per_view.csv")} == {
        ("ring", "1"), ("ring", "2"), ("ring", "3"), ("two", "2"), ("two", "4"),
    }  # fmt: skip
    assert all(row["input"] == "0" for row in rows(tmp_path / "scores", "per_view.csv"))


def test_all_benchmarks_are_those_that_the_views_allow(data, tmp_path):
    """The ring of five views is none of the published ones; only `folder` remains, and the others are named."""
    metrics = evaluate(config(data, tmp_path / "scores", benchmark=["all"], pairs=2), predictor(oracle))
    assert {table["benchmark"] for table in metrics["tables"]} == {"folder"}
    assert {name for name in benchmark_names() if any(f"under {name}:" in text for text in metrics["left_out"])} == {
        name for name in benchmark_names() if name != "folder"
    }


def test_published_scores_are_shown_under_the_same_protocol_only(data, tmp_path):
    given = config(data, tmp_path / "scores")
    evaluate(given, predictor(oracle))
    assert "12.5" in (tmp_path / "scores" / "report.html").read_text()
    other = replace(given, output=str(tmp_path / "other"), sampling=replace(given.sampling, steps=20))
    metrics = evaluate(other, predictor(oracle))
    assert "12.5" not in (tmp_path / "other" / "report.html").read_text()
    assert "sampling.steps" in metrics["tables"][0]["deviations"][0]


def test_a_setting_that_is_null_differs_from_the_number_of_the_protocol(data, tmp_path):
    benchmark = tmp_path / "ring.json"
    benchmark.write_text(json.dumps(RING | {"sampling": {"image_guidance": 2.0}}))
    metrics = evaluate(config(data, tmp_path / "scores", benchmark=[str(benchmark)]), predictor(oracle))
    assert metrics["tables"][0]["deviations"] == ["sampling.image_guidance is null, not 2."]


def test_published_scores_of_another_number_of_objects_are_not_shown(data, tmp_path):
    for count in (OBJECTS, OBJECTS + 1):
        benchmark = tmp_path / f"{count}.json"
        benchmark.write_text(json.dumps(RING | {"published_objects": count}))
        evaluate(config(data, tmp_path / f"of-{count}", benchmark=[str(benchmark)]), predictor(oracle))
        assert ("12.5" in (tmp_path / f"of-{count}" / "report.html").read_text()) == (count == OBJECTS)


def test_pictures_of_another_program_score_as_the_checkpoint_that_drew_them(data, tmp_path):
    def noisy(request: Request) -> Pixels:
        noise = np.random.default_rng(request.seed).normal(0, 20, (SIDE, SIDE, 3))
        return np.clip(oracle(request) + noise, 0, 255).astype(np.uint8)

    metrics = evaluate(config(data, tmp_path / "scores"), predictor(noisy))
    theirs = tmp_path / "theirs"
    for path in (tmp_path / "scores" / "predictions" / "views" / "model").rglob("*.png"):
        target = theirs / path.parent.name / f"{path.stem.split('-')[1]}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    again = evaluate(config(data, tmp_path / "again", predictions=str(theirs)), None)
    one, two = figure(metrics, "model", "psnr_db"), figure(again, "theirs", "psnr_db")
    assert {**two, "method": "model"} == one
    assert figure(again, "theirs", "psnr_db", minus="repeat")["mean"] > 0


def test_a_missing_or_damaged_picture_is_a_row_with_its_reason_and_no_part_of_the_mean(data, tmp_path):
    theirs = tmp_path / "theirs"
    for uid in range(OBJECTS):
        pictures, _ = views_of_dots(uid, resolution=SIDE, cameras=orbit(VIEWS, math.radians(60), 1.5))
        (theirs / f"dots-{uid:03d}").mkdir(parents=True)
        for view in (1, 2, 3):
            pictures[view].save(theirs / f"dots-{uid:03d}" / f"{view:03d}.png")
    (theirs / "dots-000" / "001.png").unlink()
    (theirs / "dots-001" / "002.png").write_bytes((theirs / "dots-001" / "002.png").read_bytes()[:60])
    Image.new("RGB", (SIDE * 2, SIDE * 2)).save(theirs / "dots-002" / "003.png")
    metrics = evaluate(config(data, tmp_path / "scores", predictions={"other": str(theirs)}), None)
    found = figure(metrics, "other", "psnr_db")
    assert found["views"] == 6 and found["mean"] == 100
    missing = {(r["uid"], r["target"]): r["missing"] for r in rows(tmp_path / "scores", "per_view.csv") if r["missing"]}
    assert set(missing) == {("dots-000", "1"), ("dots-001", "2"), ("dots-002", "3")}
    assert "64² pixels" in missing["dots-002", "3"]
    assert metrics["tables"][0]["missing"]["other"]["pictures"] == 3
    assert figure(metrics, "other", "psnr_db", minus="repeat")["views"] == 6
    objects = [row for row in rows(tmp_path / "scores", "per_object.csv") if row["method"] == "other"]
    assert [(row["views"], row["missing"]) for row in objects] == [("2", "1")] * OBJECTS


def test_of_several_samples_the_best_and_the_mean_picture_are_scored_too(data, tmp_path):
    """Two samples are 10 and 20 levels away from the truth, on opposite sides."""
    seeds: dict[tuple, list[int]] = {}

    def one(request: Request) -> Pixels:
        known = seeds.setdefault((request.uid, tuple(request.target_centre)), [])
        known.append(request.seed)
        offset = 10 if len(known) == 1 else -20
        return (oracle(request) * 0.0 + 128 + offset).astype(np.uint8)

    grey = tmp_path / "grey"
    sample = {f"{i:03d}.webp": webp(Image.new("RGBA", (SIDE, SIDE), (128, 128, 128, 255))) for i in range(VIEWS)}
    sample |= {"cameras.npy": npy_bytes(orbit(VIEWS, math.radians(60), 1.5)), "meta.json": b"{}"}
    write_shard(str(grey), "views-000000", [("dots-000", sample)], [ObjectRecord("dots-000", "ok")])
    metrics = evaluate(config(data, tmp_path / "scores", views=[str(grey)], samples=2), predictor(one))
    assert all(len(set(known)) == 2 for known in seeds.values())
    decibels = {offset: 20 * math.log10(255 / offset) for offset in (5, 10, 20)}
    assert figure(metrics, "model", "psnr_db")["mean"] == pytest.approx((decibels[10] + decibels[20]) / 2)
    assert figure(metrics, "model", "psnr_db")["views"] == 6
    assert figure(metrics, "model_best", "psnr_db")["mean"] == pytest.approx(decibels[10])
    assert figure(metrics, "model_mean", "psnr_db")["mean"] == pytest.approx(decibels[5])


def test_the_oracle_renders_the_true_mesh_from_the_target_camera(data, tmp_path):
    mesh = box((1.0, 0.5, 0.3))
    mesh.visual.vertex_colors = [200, 40, 90, 255]
    (tmp_path / "meshes").mkdir()
    mesh.export(tmp_path / "meshes" / "dots-000.ply")
    cameras = orbit(VIEWS, math.radians(60), 1.5)
    rgba = RayCaster(read_mesh(tmp_path / "meshes" / "dots-000.ply")).render(cameras, SIDE)
    sample = {f"{i:03d}.webp": webp(Image.fromarray(picture)) for i, picture in enumerate(rgba)}
    sample |= {"cameras.npy": npy_bytes(cameras), "meta.json": b"{}"}
    write_shard(f"{tmp_path}/box", "views-000000", [("dots-000", sample)], [ObjectRecord("dots-000", "ok")])
    given = config(data, tmp_path / "scores", views=[f"{tmp_path}/box"], oracle=f"{tmp_path}/meshes")
    metrics = evaluate(given, None)
    assert figure(metrics, "oracle", "psnr_db")["mean"] > 45  # rounding of colours at the edges
    assert figure(metrics, "repeat", "psnr_db")["mean"] < 25
    with pytest.raises(UserError, match=r"oracle=.*dots-001, dots-002"):
        evaluate(config(data, tmp_path / "scores2", oracle=f"{tmp_path}/meshes"), None)


@pytest.mark.parametrize(
    ("options", "side", "sentence"),
    [
        ({}, 16, "benchmark=ring: scores 32² pixels, the checkpoint draws 16²"),
        ({"views": ["{data}/random"]}, SIDE, "benchmark=ring: .*4 views"),
        ({"views": ["{data}/views", "{data}/random"]}, SIDE, "views=random: .*4 views"),
        ({"benchmark": ["nothing"]}, SIDE, "benchmark=nothing"),
        ({"predictions": "nowhere"}, SIDE, "predictions=nowhere"),
        ({"predictions": {"repeat": "nowhere"}}, SIDE, "predictions: repeat"),
        ({"metrics": ["sharpness"]}, SIDE, "metrics=sharpness"),
        ({"benchmark": ["folder"], "pairs": 21}, SIDE, "pairs=21: .* 5 views, 20 pairs"),
    ],
)
def test_what_a_benchmark_cannot_score_is_refused(data, tmp_path, options, side, sentence):
    if "views" in options:
        options = options | {"views": [folder.format(data=data) for folder in options["views"]]}
    with pytest.raises(UserError, match=sentence):
        evaluate(config(data, tmp_path / "scores", **options), predictor(oracle, side))
    assert not (tmp_path / "scores" / "metrics.json").exists()


def test_predictions_of_another_resolution_are_resized_if_asked(data, tmp_path):
    def small(request: Request) -> Pixels:
        return request.picture

    metrics = evaluate(config(data, tmp_path / "scores", resize=True), predictor(small, 16))
    assert figure(metrics, "model", "psnr_db")["views"] == OBJECTS * 3
    assert metrics["tables"][0]["resolution"] == SIDE


def test_without_a_method_the_sentence_names_the_options(data, tmp_path):
    with pytest.raises(UserError, match="checkpoint"):
        evaluate(config(data, tmp_path / "scores"), None)


def test_a_refused_run_leaves_nothing_behind(data, tmp_path):
    with pytest.raises(UserError):
        evaluate(config(data, tmp_path / "scores", views=[f"{data}/random"]), predictor(oracle))
    assert not [path for path in (tmp_path / "scores").rglob("*") if path.name != ".lock"]


def test_sjc_i_makes_one_field_of_an_input_whose_guide_ignores_the_pose(folder, tmp_path):
    novel_view = NovelView.load(str(folder), "cpu")
    side, cameras = novel_view.model.resolution, orbit(VIEWS, math.radians(60), 1.5)
    picture = white(views_of_dots(0, resolution=side, cameras=cameras)[0][0])
    given = EvaluateConfig(views=["views"], device="cpu")
    guide = unposed_guide(novel_view, picture, cameras[0], given)
    image = Image.fromarray(picture)
    posed = ModelGuide(novel_view, novel_view.encode(Prepared(image, image)), cameras[0], given.sampling)
    noisy = torch.randn(1, *guide.encode_canvas(guide.white().view(1, -1, 1, 1).expand(1, -1, side, side)).shape[1:])
    timesteps = torch.tensor([600])
    one, two = (guide.denoise(noisy, timesteps, cameras[[view]], 3.0) for view in (1, 3))
    assert torch.equal(one, two)
    assert not torch.equal(*(posed.denoise(noisy, timesteps, cameras[[view]], 3.0) for view in (1, 3)))
    options = SjcOptions(steps=2, nodes=12)
    views = sjc_views(guide, picture, cameras[[1, 3]], options, 7)
    assert views.shape == (2, side, side, 3) and (views[0] != views[1]).any()
    assert np.array_equal(views, sjc_views(guide, picture, cameras[[1, 3]], options, 7))


def test_pictures_of_sjc_i_are_scored_as_a_method(data, tmp_path):
    given = config(data, tmp_path / "scores", methods=["model", "sjc_i"])
    evaluate(replace(given, methods=["model"]), predictor(oracle))
    for uid in range(OBJECTS):  # a field of each input view exists already, so that no checkpoint is needed
        pictures, _ = views_of_dots(uid, resolution=SIDE, cameras=orbit(VIEWS, math.radians(60), 1.5))
        folder = tmp_path / f"scores/predictions/views/sjc_i/dots-{uid:03d}"
        folder.mkdir(parents=True)
        for view in (1, 2, 3):
            Image.fromarray(white(pictures[view])).save(folder / f"000-{view:03d}.png")
    metrics = evaluate(given, predictor(oracle))
    assert figure(metrics, "sjc_i", "psnr_db")["mean"] == 100
    assert figure(metrics, "model", "psnr_db", minus="sjc_i")["mean"] == 0


def test_sjc_i_uses_the_checkpoint_that_predicted_and_names_a_lack_of_memory(data, tmp_path, novel_view):
    def memory(part, given):
        raise torch.OutOfMemoryError("out of memory")

    def load(config):
        side = novel_view.model.resolution
        return Predictor(lambda requests: np.stack([one.picture for one in requests]), side, "", novel_view=novel_view)

    given = config(data, tmp_path / "scores", checkpoint="nowhere", methods=["model", "sjc_i"], resize=True)
    hook = novel_view.model.unet.register_forward_pre_hook(memory)
    try:
        with pytest.raises(UserError, match="too little memory for sjc_i"):
            evaluate(given, load)
    finally:
        hook.remove()


def test_without_a_pose_stable_zero123_is_not_told_the_elevation_of_the_input(folder):
    novel_view = NovelView.load(str(folder), "cpu")
    novel_view.model.cc_projection.pose_vector = PoseVector.stable_zero123
    high, low = (look_at_origin(spherical_to_cartesian(polar, 0.0, 1.5)) for polar in (0.5, 2.0))
    view = webp(views_of_dots(0, resolution=16)[0][0])
    benchmark, side = read_benchmark("folder"), novel_view.model.resolution
    requests = [Request("a", view, benchmark, side, camera_centre(one), None, 0) for one in (high, low)]
    assert np.array_equal(*predict_views(novel_view, requests, Sampling(steps=2), 2))
    picture, given = white(views_of_dots(0, resolution=side)[0][0]), EvaluateConfig(views=["views"], device="cpu")
    for input_camera in (high, low):
        assert not unposed_guide(novel_view, picture, input_camera, given).poses(np.stack([high, low])).any()
