"""Methods whose scores are known: an oracle, one that repeats its input, one that always gives the mean view."""

import csv
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from conf.options import UserError
from inference.config import Sampling
from inference.evaluation.config import EvaluateConfig
from inference.evaluation.evaluation import evaluate
from inference.evaluation.measures import mean_over_objects
from inference.evaluation.methods.method import Pixels
from inference.evaluation.methods.predictions import Predictor, Request
from inference.evaluation.metrics.structural_similarity import ssim
from inference.evaluation.pairs import MIN_WRONG_DEGREES, angle_degrees, choose_pairs, fixed_pairs
from inference.evaluation.shown_pose import frame_references, nearest_reference
from inference.evaluation.workers import load_predictor
from pipeline.samples import npy_bytes, read_samples
from pipeline.shards import ObjectRecord, read_manifests, write_shard
from rendering.cameras import camera_centre, look_at_origin, sample_zero123, spherical_to_cartesian
from tests.support.dots import views_of_dots, webp, write_dots
from training.data.sources import read_sources
from training.data.split import split
from training.model.config import Background
from training.model.picture import on_white

OBJECTS, SIDE = 6, 32


def grid(azimuths: int = 16, polars: int = 7) -> np.ndarray:
    angles = [
        (math.pi * (p + 0.5) / polars, 2 * math.pi * a / azimuths) for p in range(polars) for a in range(azimuths)
    ]
    return np.stack([look_at_origin(spherical_to_cartesian(polar, azimuth, 1.85)) for polar, azimuth in angles])


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("evaluation")
    write_dots(root / "views", OBJECTS, views=8)
    write_dots(root / "references", OBJECTS, cameras=grid())
    write_dots(root / "training", OBJECTS + 3, views=6)
    write_dots(root / "few", OBJECTS - 2, cameras=grid(4, 3))
    write_dots(root / "small", 2, resolution=16)
    (root / "run").mkdir()
    (root / "run" / "validation.txt").write_text("dots-001\n")
    shards = [read_samples(f"{root}/views", manifest.name) for manifest in read_manifests(f"{root}/views", "views")]
    copies = {f"copy-of-{uid}": sample for shard in shards for uid, sample in shard}
    write_shard(f"{root}/copies", "views-000000", copies.items(), [ObjectRecord(uid, "ok") for uid in copies])
    return root


def config(data: Path, output: Path, **options) -> EvaluateConfig:
    given = {"checkpoint": "", "views": [f"{data}/views"], "output": str(output), "references": [f"{data}/references"]}
    return EvaluateConfig(**{**given, **options})


def white(picture: Image.Image) -> Pixels:
    return np.asarray(on_white(picture, Background.composite))


def oracle(request: Request) -> Pixels:
    """Draw the object from the target camera; without a pose, from the input's."""
    centre = request.input_centre if request.target_centre is None else request.target_centre
    pictures, _ = views_of_dots(int(request.uid[-3:]), resolution=SIDE, cameras=look_at_origin(centre)[None])
    return white(pictures[0])


def method(one, weights: str = "known", batch: int = 5):
    return lambda config: Predictor(lambda requests: np.stack([one(r) for r in requests]), SIDE, weights, batch)


def means(metrics, metric: str) -> dict[str, float]:
    return {f["method"]: f["mean"] for f in metrics["figures"] if f["metric"] == metric and not f["by"] + f["minus"]}


def differences(metrics, metric: str) -> dict[str, dict]:
    return {f["minus"]: f for f in metrics["figures"] if f["metric"] == metric and f["minus"]}


@pytest.fixture(scope="module")
def of_oracle(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("oracle") / "scores"
    return evaluate(config(data, output, training=[f"{data}/training"]), method(oracle)), output


def test_an_oracle_is_perfect_and_turns_to_the_given_camera(of_oracle):
    metrics, _ = of_oracle
    decibels, shares = means(metrics, "psnr_db"), means(metrics, "pose_within_20")
    assert decibels["model"] == 100 and means(metrics, "ssim")["model"] == 1
    assert shares["truth"] == shares["model"] > 0.9
    assert means(metrics, "pose_within_20_clear")["model"] == 1
    assert shares["repeat"] < 0.3 and shares["mean"] < 0.3
    assert shares["wrong_pose"] < 0.1  # it shows the given camera, far from the target
    assert means(metrics, "psnr_db")["no_pose"] == decibels["repeat"]
    assert all(f["low"] > 0 for f in differences(metrics, "psnr_db").values())
    assert {f["objects"] for f in differences(metrics, "psnr_db").values()} == {OBJECTS}


def test_files_agree_with_each_other(of_oracle):
    metrics, output = of_oracle
    assert json.loads((output / "metrics.json").read_text()) == json.loads(json.dumps(metrics))
    with open(output / "per_view.csv", newline="") as file:
        views = list(csv.DictReader(file))
    with open(output / "per_object.csv", newline="") as file:
        objects = list(csv.DictReader(file))
    methods = {"model", "wrong_pose", "no_pose", "repeat", "mean", "nearest"}
    assert len(views) == OBJECTS * 4 * (len(methods) + 1) and {row["method"] for row in views} == methods | {"truth"}
    of_repeat = [float(row["psnr_db"]) for row in objects if row["method"] == "repeat"]
    assert np.mean(of_repeat) == pytest.approx(means(metrics, "psnr_db")["repeat"], abs=1e-4)
    assert all(row["views"] == "4" for row in objects)
    page = (output / "report.html").read_text()
    assert page.count("<svg") == 8  # PSNR, SSIM, mask IoU and poses over two angles
    assert all(source.startswith("data:") for source in re.findall(r'(?:src|href)="([^"#][^"]*)"', page))


def test_bins_hold_every_pair_once(of_oracle):
    metrics, _ = of_oracle
    for by in ("angle", "azimuth_change"):
        binned = [f for f in metrics["figures"] if f["by"] == by and f["method"] == "repeat" and f["metric"] == "ssim"]
        assert sum(f["views"] for f in binned) == OBJECTS * 4


def test_a_method_that_repeats_its_input_has_the_score_of_that_baseline(data, tmp_path):
    metrics = evaluate(config(data, tmp_path / "scores"), method(lambda request: request.picture))
    for metric in ("psnr_db", "ssim", "pose_within_20"):
        assert means(metrics, metric)["model"] == means(metrics, metric)["repeat"]
        assert differences(metrics, metric)["repeat"]["mean"] == 0
    assert "mean" not in means(metrics, "psnr_db") and len(metrics["left_out"]) == 1


def test_the_mean_view_is_the_mean_of_the_training_views_that_are_not_scored(data, tmp_path):
    pictures = [white(p) for uid in range(OBJECTS, OBJECTS + 3) for p in views_of_dots(uid, 6, SIDE)[0]]
    mean = np.mean(pictures, axis=0).round().astype(np.uint8)
    given = config(data, tmp_path / "scores", training=[f"{data}/training"])
    metrics = evaluate(given, method(lambda request: mean))
    assert means(metrics, "psnr_db")["model"] == means(metrics, "psnr_db")["mean"]
    assert means(metrics, "pose_within_20")["model"] == means(metrics, "pose_within_20")["mean"]


def test_the_nearest_training_object_is_the_object_itself_if_it_is_there(data, tmp_path):
    """Copies of the scored objects under other uids: the baseline finds the input and turns it to the true view."""
    given = config(data, tmp_path / "scores", training=[f"{data}/copies"], references=[])
    metrics = evaluate(given, method(lambda request: request.picture))
    assert means(metrics, "psnr_db")["nearest"] == 100


def test_noise_of_known_size_has_the_psnr_of_its_size(data, tmp_path):
    def noisy(request: Request) -> Pixels:
        truth = oracle(request).astype(int)
        return np.where(truth > 127, truth - 8, truth + 8).astype(np.uint8)

    metrics = evaluate(config(data, tmp_path / "scores"), method(noisy))
    assert means(metrics, "psnr_db")["model"] == pytest.approx(20 * math.log10(255 / 8))
    assert means(metrics, "pose_within_20")["model"] > 0.8


def test_ssim_of_flat_pictures_is_that_of_the_formula():
    a, b = 100, 120
    flat = [np.full((32, 32, 3), level, np.uint8) for level in (a, b)]
    c = (0.01 * 255) ** 2
    assert ssim(*flat) == pytest.approx((2 * a * b + c) / (a * a + b * b + c), abs=1e-6)


def test_intervals_are_over_objects():
    rng = np.random.default_rng(1)
    values = rng.normal(20, 2, 100)
    mean = mean_over_objects(values)
    half_width = 1.96 * values.std() / math.sqrt(100)
    assert mean.low == pytest.approx(values.mean() - half_width, abs=0.1)
    assert mean.high == pytest.approx(values.mean() + half_width, abs=0.1)
    assert mean_over_objects(values) == mean
    assert mean_over_objects([3.0]).low is None


def test_pairs_depend_on_seed_and_uid_alone_and_are_spread():
    cameras = [sample_zero123(np.random.default_rng(i), 12) for i in range(50)]
    angles = []
    for i, centres in enumerate(map(camera_centre, cameras)):
        pairs = choose_pairs(0, f"object-{i}", centres, 4)
        assert pairs == choose_pairs(0, f"object-{i}", centres, 4) != choose_pairs(1, f"object-{i}", centres, 4)
        assert len({pair.input for pair in pairs}) == len({pair.target for pair in pairs}) == 4
        assert all(pair.input != pair.target for pair in pairs)
        assert all(angle_degrees(pair.wrong, centres[pair.target]) >= MIN_WRONG_DEGREES for pair in pairs)
        assert all([p] == fixed_pairs(0, f"object-{i}", centres, p.input, [p.target]) for p in pairs)
        angles += [angle_degrees(centres[pair.input], centres[pair.target]) for pair in pairs]
    share = np.histogram(angles, bins=6, range=(0, 180))[0] / len(angles)
    assert share.min() > 0.08 and share.max() < 0.3


@pytest.mark.parametrize("change", ["moved", "blurred", "faint", "noisy"])
def test_the_shown_pose_is_found_in_pictures_of_poor_quality(change):
    pictures, cameras = views_of_dots(3, resolution=64, cameras=grid(12, 6))
    references, centres = frame_references([white(picture) for picture in pictures]), camera_centre(cameras)
    changed = []
    for picture in pictures[::5]:
        match change:
            case "moved":
                moved = Image.new("RGBA", (64, 64))
                moved.paste(picture.resize((44, 44), Image.Resampling.BOX), (17, 3))
                changed.append(white(moved))
            case "blurred":
                changed.append(np.asarray(Image.fromarray(white(picture)).filter(ImageFilter.GaussianBlur(2))))
            case "faint":
                changed.append((255 - (255 - white(picture).astype(float)) * 0.6).astype(np.uint8))
            case "noisy":
                noise = np.random.default_rng(0).normal(0, 8, (64, 64, 3))
                changed.append(np.clip(white(picture) + noise, 0, 255).astype(np.uint8))
    found = centres[nearest_reference(changed, references)]
    errors = [angle_degrees(one, two) for one, two in zip(found, centres[::5], strict=True)]
    assert np.mean(np.array(errors) < 5) > 0.8


def test_scores_do_not_depend_on_the_batch(folder, tmp_path):
    write_dots(tmp_path / "views", 3, resolution=16, views=4)
    given = EvaluateConfig(
        str(folder), [f"{tmp_path}/views"], device="cpu", pairs=2, sampling=Sampling(steps=2, guidance=2.0)
    )
    results = []
    for batch in (1, 4, 100):
        output = tmp_path / f"batch{batch}"
        evaluate(replace(given, output=str(output), batch=batch), load_predictor)
        files = sorted(path.relative_to(output) for path in output.rglob("*.png"))
        results.append({file: np.asarray(Image.open(output / file)).astype(int) for file in files})
    assert len(results[0]) == 3 * 2 * 3
    for other in results[1:]:
        assert other.keys() == results[0].keys()
        assert all(np.abs(other[file] - picture).max() <= 1 for file, picture in results[0].items())
    model, without = (
        {file.parts[-2:]: picture for file, picture in results[0].items() if method in file.parts}
        for method in ("model", "no_pose")
    )
    assert all((model[name] != without[name]).any() for name in model)


def test_an_interrupted_run_continues_where_it_was(data, tmp_path, of_oracle):
    requests = []

    def interrupted(request: Request) -> Pixels:
        if len(requests) == 23:
            raise KeyboardInterrupt
        requests.append(request)
        return oracle(request)

    given = config(data, tmp_path / "scores", training=[f"{data}/training"])
    with pytest.raises(KeyboardInterrupt):
        evaluate(given, method(interrupted))
    kept = len(list((tmp_path / "scores").rglob("*.png")))
    assert kept == 20  # the batches of five that were complete
    requests.clear()
    again = evaluate(given, method(lambda request: requests.append(request) or oracle(request)))
    assert len(requests) == OBJECTS * 4 * 3 - kept
    assert again["figures"] == of_oracle[0]["figures"]
    for name in ("per_view.csv", "per_object.csv"):
        assert (tmp_path / "scores" / name).read_bytes() == (of_oracle[1] / name).read_bytes()


def test_the_output_of_another_run_is_refused(data, tmp_path):
    given = config(data, tmp_path / "scores", references=[], methods=["model"])
    evaluate(given, method(oracle))
    with pytest.raises(UserError, match="output=.*another checkpoint"):
        evaluate(given, method(oracle, weights="other"))
    with pytest.raises(UserError, match="output=.*pairs=4"):
        evaluate(replace(given, pairs=3), method(oracle))
    evaluate(replace(given, limit=2), method(oracle))  # fewer objects need no other predictions
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "metrics.json").write_text("{}")
    with pytest.raises(UserError, match="metrics.json"):
        evaluate(replace(given, output=str(tmp_path / "foreign")), method(oracle))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"views": ["nowhere"]}, "nowhere: no such folder"),
        ({"references": ["nowhere"]}, "nowhere: no such folder"),
        ({"training": ["nowhere"]}, "nowhere: no such folder"),
        ({"training": ["{data}/views"]}, "training=.*: all objects are scored"),
        ({"views": ["{data}/views", "{data}/views"]}, "views=.*: give folders with different names"),
        ({"run": "{data}/views"}, "run=.*: has no validation.txt"),
        ({"views": ["{data}/copies"], "run": "{data}/run"}, "no object to score"),
        ({"output": "memory://scores"}, "output=memory://scores: must be a local folder"),
        ({"split": ["some"]}, "some: unknown"),
        ({"split": ["all", "all"]}, "split=all,all: "),
        ({"methods": ["wrong_pose"]}, "methods: "),
        ({"validation_fraction": 2.0}, "validation_fraction=2.0"),
        ({"pairs": 57}, "pairs=57: .* 8 views, 56 pairs"),
        ({"references": ["{data}/few"]}, "references=.*: 2 of 6 objects .*dots-004, dots-005"),
        ({"views": ["{data}/small"], "references": []}, "16² pixels, the model's 32²"),
    ],
)
def test_input_that_cannot_be_scored_is_refused(data, tmp_path, options, sentence):
    def filled(value):
        return [filled(one) for one in value] if isinstance(value, list) else str(value).format(data=data)

    options = {name: filled(value) if isinstance(value, (str, list)) else value for name, value in options.items()}
    with pytest.raises(UserError, match=sentence):
        evaluate(config(data, **{"output": tmp_path / "scores", **options}), method(oracle))
    assert not list(tmp_path.rglob("*.png"))


def test_a_ball_of_one_colour_shows_no_pose(data, tmp_path):
    """Without a clear view there is a share, but no share of clear views."""
    ball = Image.new("RGBA", (SIDE, SIDE))
    ImageDraw.Draw(ball).ellipse((8, 8, 24, 24), fill=(90, 120, 60, 255))
    cameras = grid(12, 6)
    for name, poses in (("views", cameras[40:44]), ("references", cameras[:36])):  # from below; from above
        sample = {f"{i:03d}.webp": webp(ball) for i in range(len(poses))}
        sample |= {"cameras.npy": npy_bytes(poses), "meta.json": b"{}"}
        write_shard(f"{tmp_path}/{name}", "views-000000", [("ball", sample)], [ObjectRecord("ball", "ok")])
    given = config(tmp_path, tmp_path / "scores")
    metrics = evaluate(given, method(lambda request: white(ball)))
    assert means(metrics, "pose_within_20")["truth"] == 0
    assert means(metrics, "pose_within_20_clear") == {}


def test_a_set_without_any_references_is_named(data, tmp_path):
    views = [f"{data}/views", f"{data}/copies"]
    metrics = evaluate(config(data, tmp_path / "scores", views=views, pairs=2, limit=2), method(oracle))
    assert any("copies" in sentence for sentence in metrics["left_out"])
    assert {f["set"] for f in metrics["figures"] if f["metric"] == "pose_within_20"} == {"views"}


def test_objects_that_training_holds_out_are_scored(data, tmp_path):
    held_out = split(read_sources(f"{data}/views", "views"), 0.4).validation
    expected = {uid for shard in held_out for uid in shard.uids}
    run = tmp_path / "run"
    run.mkdir()
    (run / "validation.txt").write_text("".join(f"{uid}\n" for uid in expected))
    views = [f"{data}/views", f"{data}/copies"]  # the copies are not in the run
    for i, options in enumerate(
        [{"split": ["held_out"], "validation_fraction": 0.4}, {"run": str(run), "views": views}]
    ):
        output = tmp_path / f"scores{i}"
        given = config(data, output, references=[], methods=["model"], training=[f"{data}/training"], **options)
        metrics = evaluate(given, method(oracle))
        assert any("copies" in sentence for sentence in metrics["left_out"]) == ("run" in options)
        with open(output / "per_object.csv", newline="") as file:
            assert {row["uid"] for row in csv.DictReader(file)} == expected
    assert 0 < len(expected) < OBJECTS


def test_references_in_a_folder_of_the_name_of_the_set_are_used_for_it(data, tmp_path):
    """Two sources have the same uid for different objects."""
    write_dots(tmp_path / "other", OBJECTS, first_seed=50, cameras=grid())
    write_dots(tmp_path / "own" / "views", OBJECTS, cameras=grid())
    references = [f"{tmp_path}/other", f"{tmp_path}/own/views"]
    metrics = evaluate(config(data, tmp_path / "scores", references=references, limit=3), method(oracle))
    assert means(metrics, "pose_within_20")["truth"] > 0.9
