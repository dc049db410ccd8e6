"""Consistency of orbits without truth: a ball with coloured patches, methods of known consistency, and a whole run."""

import csv
import json
import math
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from conf.options import UserError
from inference.evaluation.benchmarks.manifest import read_benchmark
from inference.evaluation.config import EvaluateConfig
from inference.evaluation.consistency.consistency_scores import ConsistencyScore, consistency_figures, missing_scores
from inference.evaluation.consistency.field_comparison import FieldComparison, compare_halves
from inference.evaluation.consistency.orbits import orbit_cameras, orbit_of
from inference.evaluation.evaluation import evaluate
from inference.evaluation.methods.method import Pixels
from inference.evaluation.methods.predictions import Predictor
from inference.evaluation.metrics.pixels import PSNR
from inference.evaluation.metrics.structural_similarity import SSIM_UNIFORM7
from inference.evaluation.metrics.weights import MetricWeights
from inference.evaluation.pairs import Pair
from inference.evaluation.scored_object import ScoredObject
from inference.meshes.ray_casting import pixel_rays
from pipeline.samples import npy_bytes
from pipeline.shards import ObjectRecord, write_shard
from rendering.cameras import (
    FOV_DEGREES,
    camera_centre,
    cartesian_to_spherical,
    grid,
    look_at_origin,
    sample_zero123,
    spherical_to_cartesian,
)
from tests.support.dots import webp

SIDE, RADIUS, CENTRE = 32, 0.3, (0.1, 0.05, 0.05)
INPUT = look_at_origin(spherical_to_cartesian(math.radians(65), 0.7, 1.8))
CAMERAS, BETWEEN = orbit_cameras(INPUT, 12), orbit_cameras(INPUT, 12, 0.5)


def patched_ball(camera: np.ndarray, centre: Sequence[float] = CENTRE, radius: float = RADIUS) -> Pixels:
    """Return the picture of a ball whose eight octants have different colours, four rays for each pixel."""
    directions = pixel_rays(camera, SIDE, FOV_DEGREES, samples=2)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    origin = camera_centre(camera) - np.asarray(centre)
    along = directions @ origin
    under = along**2 - origin @ origin + radius**2
    points = origin - (along + np.sqrt(np.maximum(under, 0)))[:, None] * directions
    octant = (points > 0) @ [1, 2, 4]
    colours = np.random.default_rng(3).uniform(0, 200, (8, 3))[octant]
    colours[under <= 0] = 255
    return colours.reshape(SIDE, 2, SIDE, 2, 3).mean(axis=(1, 3)).round().astype(np.uint8)


def compared(pictures: Sequence[Pixels], seed: int = 0) -> FieldComparison:
    return compare_halves(pictures, CAMERAS, BETWEEN, [PSNR, SSIM_UNIFORM7], seed)


def speckled(picture: Pixels, rng: np.random.Generator) -> Pixels:
    """Return a picture whose object has random colours."""
    return np.where(picture.min(axis=2, keepdims=True) < 239, rng.integers(0, 200, picture.shape), picture).astype(
        np.uint8
    )


@pytest.fixture(scope="module")
def oracle() -> FieldComparison:
    return compared([patched_ball(camera) for camera in CAMERAS])


def test_an_orbit_has_the_elevation_and_distance_of_its_input():
    assert np.allclose(CAMERAS[0], INPUT)
    spheres = np.array([cartesian_to_spherical(camera_centre(camera)) for camera in CAMERAS])
    assert np.allclose(spheres[:, [0, 2]], [math.radians(65), 1.8])
    turns = np.diff(np.unwrap(spheres[:, 1]))
    assert np.allclose(turns, math.radians(30))  # counter-clockwise
    assert math.isclose(cartesian_to_spherical(camera_centre(BETWEEN[0]))[1], 0.7 + math.radians(15))


def test_the_targets_of_an_orbit_follow_the_views_of_the_object():
    cameras = sample_zero123(np.random.default_rng(0), 4)
    one = ScoredObject("ball", cameras, [Pair(2, 0, (0, 0, 1))], {2: b"two", 0: b"zero"}, read_benchmark("folder"))
    orbit = orbit_of(one, 6)
    assert [(pair.input, pair.target) for pair in orbit.pairs] == [(2, 4 + k) for k in range(6)]
    assert orbit.views == {2: b"two"}
    assert np.allclose(orbit.centres[4], one.centres[2])


def test_views_of_one_object_are_consistent(oracle):
    assert oracle.values["psnr_db"] > 27 and oracle.values["ssim_uniform7"] > 0.95
    assert oracle.values["views_psnr_db"] > 22
    assert oracle.values["chamfer"] < 0.02  # grid nodes are 0.035 apart
    assert oracle.strip.shape == (3 * SIDE, 4 * SIDE, 3)
    assert np.array_equal(oracle.strip[:SIDE, SIDE : 2 * SIDE], patched_ball(CAMERAS[3]))


def test_views_of_random_colours_are_less_consistent(oracle):
    rng = np.random.default_rng(0)
    noisy = compared([speckled(patched_ball(camera), rng) for camera in CAMERAS])
    assert noisy.values["psnr_db"] < oracle.values["psnr_db"] - 3
    assert noisy.values["ssim_uniform7"] < oracle.values["ssim_uniform7"] - 0.02
    assert noisy.values["views_psnr_db"] < oracle.values["views_psnr_db"] - 3
    assert noisy.values["chamfer"] < 0.02  # the outlines are still those of the ball


def test_a_shape_that_differs_between_the_halves_has_a_chamfer_distance(oracle):
    """Odd views show a ball that is smaller by 0.1: its surface is 0.1 away."""
    pictures = [patched_ball(camera, radius=RADIUS - 0.1 * (k % 2)) for k, camera in enumerate(CAMERAS)]
    assert compared(pictures).values["chamfer"] == pytest.approx(0.1, abs=0.025)


def test_repeated_input_agrees_with_itself_but_not_with_its_views(oracle):
    """The limit of consistency without truth: one picture for all cameras makes a solid of revolution."""
    repeated = compared([patched_ball(CAMERAS[0])] * len(CAMERAS))
    assert repeated.values["psnr_db"] > oracle.values["psnr_db"] - 1
    assert repeated.values["views_psnr_db"] < oracle.values["views_psnr_db"] - 4


def test_scores_repeat_exactly(oracle):
    again = compared([patched_ball(camera) for camera in CAMERAS])
    assert again.values == oracle.values and np.array_equal(again.strip, oracle.strip)


def test_views_that_no_shape_has_are_refused():
    far = [(0.3, 0, 0), (-0.3, 0, 0)]  # two small balls apart: no outline contains the other
    pictures = [patched_ball(camera, far[k // 2 % 2], 0.1) for k, camera in enumerate(CAMERAS)]
    with pytest.raises(UserError, match="contradict"):
        compared(pictures)
    with pytest.raises(UserError):
        compared([np.full((SIDE, SIDE, 3), 255, np.uint8)] * len(CAMERAS))


def test_differences_are_of_the_objects_that_both_methods_have():
    def score(uid: str, method: str, *values: float) -> ConsistencyScore:
        found = dict(zip(["psnr_db"], values, strict=False))
        return ConsistencyScore("folder", "set", uid, 0, method, 8, found, "" if values else "contradict")

    scores = [score("a", "model", 20.0), score("a", "other", 18.0), score("b", "model", 10.0), score("b", "other")]
    figures = {(f.method, f.minus): (f.objects, f.views, f.mean.value) for f in consistency_figures(scores)}
    assert figures == {("model", ""): (2, 16, 15.0), ("other", ""): (1, 8, 18.0), ("model", "other"): (1, 8, 2.0)}
    assert missing_scores(scores) == [
        {"benchmark": "folder", "set": "set", "method": "other", "objects": 1, "uid": "b", "reason": "contradict"}
    ]


# The whole command.

UIDS = ("ball-0", "ball-1")
VIEWS = 8


@pytest.fixture(scope="module")
def balls(tmp_path_factory) -> str:
    """Return the folder of the views of two balls from random cameras."""
    root = tmp_path_factory.mktemp("balls") / "balls"
    write_balls(root, [sample_zero123(np.random.default_rng(number), 3) for number in range(len(UIDS))])
    return str(root)


def write_balls(root, cameras_of_each: Sequence[np.ndarray]) -> None:
    samples = []
    for uid, cameras in zip(UIDS, cameras_of_each, strict=True):
        pictures = {f"{k:03d}.webp": webp(Image.fromarray(patched_ball(c))) for k, c in enumerate(cameras)}
        samples.append((uid, {**pictures, "cameras.npy": npy_bytes(cameras), "meta.json": b"{}"}))
    write_shard(str(root), "views-000000", samples, [ObjectRecord(uid, "ok") for uid in UIDS])


def options(balls: str, output, **given) -> EvaluateConfig:
    known = {"views": [balls], "output": str(output), "pairs": 1, "methods": ["model"], "consistency": VIEWS}
    return EvaluateConfig(**{**known, "weights": MetricWeights(download=False), **given})


class Ball:
    """A predictor that draws the ball, and counts its pictures."""

    def __init__(self) -> None:
        self.drawn = 0

    def load(self, config: EvaluateConfig) -> Predictor:
        return Predictor(self.predict, SIDE, "ball", 5)

    def predict(self, requests) -> Pixels:
        self.drawn += len(requests)
        return np.stack([patched_ball(look_at_origin(request.target_centre)) for request in requests])


def rows(output) -> list[dict[str, str]]:
    with open(output / "consistency.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_writes_scores_and_continues(balls, tmp_path):
    output, method = tmp_path / "scores", Ball()
    write_balls(tmp_path / "references", [grid(4, 1.85)] * len(UIDS))
    given = options(balls, output, references=[f"{tmp_path}/references"])
    metrics = evaluate(given, method.load)
    assert method.drawn == len(UIDS) * (1 + VIEWS)
    found = rows(output)
    assert {(row["uid"], row["method"]) for row in found} == {(u, m) for u in UIDS for m in ("model", "repeat")}
    assert len(found) == 2 * len(UIDS)
    assert all(row["views"] == str(VIEWS) and not row["missing"] for row in found)
    means = {(f["method"], f["metric"]): f for f in metrics["consistency"]["figures"] if not f["minus"]}
    (difference,) = (f for f in metrics["consistency"]["figures"] if f["minus"] and f["metric"] == "views_psnr_db")
    assert difference["mean"] == pytest.approx(
        means["model", "views_psnr_db"]["mean"] - means["repeat", "views_psnr_db"]["mean"]
    )
    of_model = [float(row["psnr_db"]) for row in found if row["method"] == "model"]
    assert means["model", "psnr_db"]["mean"] == pytest.approx(np.mean(of_model), abs=1e-3)
    assert means["model", "psnr_db"]["low"] <= means["model", "psnr_db"]["mean"] <= means["model", "psnr_db"]["high"]
    assert means["model", "views_psnr_db"]["mean"] > means["repeat", "views_psnr_db"]["mean"] + 3
    assert means["model", "pose_within_20"]["mean"] > 0.8 and means["repeat", "pose_within_20"]["mean"] < 0.4
    page = (output / "report.html").read_text()
    assert "Consistency of orbits" in page

    kept = sorted(output.glob("predictions/balls/orbit-8/fields-*/*/*.json"))
    assert len(kept) == 2 * len(UIDS)
    kept[0].unlink()
    kept[1].write_text("{broken")
    before = [path.stat().st_mtime_ns for path in kept[2:]]
    again = evaluate(given, method.load)
    assert method.drawn == len(UIDS) * (1 + VIEWS)  # nothing was drawn again
    assert [path.stat().st_mtime_ns for path in kept[2:]] == before  # nor fitted, where the scores were there
    assert again["consistency"] == json.loads(json.dumps(metrics["consistency"]))
    assert rows(output) == found


def test_orbits_of_other_programs_and_their_faults(balls, tmp_path):
    folder = tmp_path / "other"
    for number, uid in enumerate(UIDS):
        (folder / uid / "orbit").mkdir(parents=True)
        for k in range(VIEWS - number):  # one view of the second object is missing
            Image.new("RGB", (SIDE, SIDE), "white").save(folder / uid / "orbit" / f"{k:03d}.png")
    metrics = evaluate(options(balls, tmp_path / "scores", predictions=str(folder)), None)
    missing = {row["uid"]: row["missing"] for row in rows(tmp_path / "scores") if row["method"] == "other"}
    assert "silhouette is empty" in missing["ball-0"] and "7 views, not 8" in missing["ball-1"]
    assert metrics["consistency"]["missing"][0]["objects"] == 2
    assert {f["method"] for f in metrics["consistency"]["figures"]} == {"repeat"}
    assert "silhouette is empty" in (tmp_path / "scores" / "report.html").read_text()


def test_without_the_option_nothing_is_drawn_or_written(balls, tmp_path):
    method = Ball()
    metrics = evaluate(options(balls, tmp_path / "scores", consistency=0), method.load)
    assert method.drawn == len(UIDS) and "consistency" not in metrics
    assert not (tmp_path / "scores" / "consistency.csv").exists()


@pytest.mark.parametrize("views", [3, 5, 7, 130, -2])
def test_numbers_of_views_that_cannot_be_halved_are_refused(views):
    with pytest.raises(UserError, match=f"consistency={views}"):
        EvaluateConfig(views=["views"], consistency=views)
