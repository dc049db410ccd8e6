"""FID and CLIP-FID against closed forms and against golden values of the original packages."""

import shutil

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from conf.options import UserError
from inference.evaluation.config import EvaluateConfig
from inference.evaluation.evaluation import evaluate
from inference.evaluation.metrics.frechet_distance import clip_fid, frechet_distance
from inference.evaluation.metrics.inception import Inception
from inference.evaluation.metrics.loading import load_metrics
from inference.evaluation.metrics.weights import MetricWeights
from tests.support.released import files_of, write_folder

CPU = torch.device("cpu")


def random_inception() -> dict[str, torch.Tensor]:
    """Weights that keep the size of the activations, by the names of pytorch-fid's file."""
    rng, weights = np.random.default_rng(0), {}
    for name, like in Inception().state_dict().items():
        values = rng.standard_normal(like.shape, dtype=np.float32)
        if "conv" in name:
            values *= np.sqrt(2 / like[0].numel(), dtype=np.float32)
        elif name.endswith(("bn.weight", "running_var")):
            values = 1 + np.abs(values) / 4
        elif not name.endswith("num_batches_tracked"):
            values /= 4
        weights[name] = torch.from_numpy(np.asarray(values, dtype=np.float32))
    return {name: weight for name, weight in weights.items() if not name.endswith("num_batches_tracked")}


def picture(side: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def inception(tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "inception.pth"
    torch.save({**random_inception(), "fc.bias": torch.zeros(1008)}, path)
    return path


def test_inception_features_are_those_of_torch_fidelity_after_the_resizing_of_clean_fid(inception):
    loaded = load_metrics(["fid"], MetricWeights(inception=str(inception)), CPU)
    (fid,) = loaded.set_metrics
    assert "not the published" in fid.definition and "2048" in fid.definition
    features = fid.features([picture(), picture(80, 1), picture()])
    assert features.shape == (3, 2048) and features.dtype == np.float64
    # Computed once with torch-fidelity 0.4.0's network and clean-fid 0.1.35's build_resizer("clean").
    golden = [43.23770523, 40.90011215, 0.56289423, 1.81573212, 63.78229523, 0.25954849, 52.48674774, 0]
    assert [*features[0, :4], *features[0, -4:]] == pytest.approx(golden, abs=1e-4)
    assert features[0].mean() == pytest.approx(17.92703662, abs=1e-4)
    assert features[0].std() == pytest.approx(23.0603839, abs=1e-4)
    assert np.array_equal(features[0], features[2])
    assert fid.distance(features, features) == pytest.approx(0, abs=1e-6)


def test_a_file_of_other_weights_is_refused(inception, tmp_path):
    weights = random_inception()
    torch.save({**weights, "fc.bias": torch.zeros(1000)}, tmp_path / "torchvision.pth")
    del weights["Mixed_7c.branch_pool.conv.weight"]
    torch.save({**weights, "fc.bias": torch.zeros(1008)}, tmp_path / "incomplete.pth")
    for name, reason in (("torchvision", "another network"), ("incomplete", "has no tensor Mixed_7c.branch_pool")):
        with pytest.raises(UserError, match=rf"weights.inception=.*{name}.pth: .*{reason}"):
            load_metrics(["fid"], MetricWeights(inception=str(tmp_path / f"{name}.pth")), CPU)


def exact_features(mean: np.ndarray, covariance: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Features `[count, F]` whose sample mean and covariance are those given."""
    noise = np.random.default_rng(seed).standard_normal((count, len(mean)))
    centred = noise - noise.mean(axis=0)
    white = centred @ np.linalg.inv(np.linalg.cholesky(centred.T @ centred / (count - 1)).T)
    return mean + white @ np.linalg.cholesky(covariance).T


def test_distance_of_gaussians_by_hand():
    first = exact_features(np.zeros(3), np.diag([1.0, 4.0, 9.0]), 40, 0)
    second = exact_features(np.array([1.0, 2.0, 2.0]), np.diag([4.0, 4.0, 1.0]), 25, 1)
    expected = 9 + (1 - 2) ** 2 + 0 + (3 - 1) ** 2  # squared distances of the means and of the standard deviations
    assert frechet_distance(first, second) == pytest.approx(expected, abs=1e-9)
    assert frechet_distance(second, first) == pytest.approx(expected, abs=1e-9)
    assert frechet_distance(first + 5, second + 5) == pytest.approx(expected, abs=1e-9)


def matrix_root_distance(first: np.ndarray, second: np.ndarray) -> float:
    """The equation as it is written."""
    (m1, m2), (s1, s2) = [x.mean(axis=0) for x in (first, second)], [np.cov(x, rowvar=False) for x in (first, second)]
    return float(np.sum((m1 - m2) ** 2) + np.trace(s1 + s2 - 2 * np.real(sqrtm(s1 @ s2))))


@pytest.mark.parametrize(("first", "second"), [(100, 60), (60, 100)])
def test_distance_of_correlated_features_agrees_with_the_matrix_root(first, second):
    rng = np.random.default_rng(2)
    a = rng.standard_normal((first, 12)) @ rng.standard_normal((12, 12))
    b = rng.standard_normal((second, 12)) @ rng.standard_normal((12, 12)) + 0.5
    assert frechet_distance(a, b) == pytest.approx(matrix_root_distance(a, b), abs=1e-4)


def test_fewer_pictures_than_features():
    """Both sets vary along one axis of eight only, with standard deviations 2 and 5; the means differ by 3."""
    axis = np.zeros(8)
    axis[2] = 1
    first, second = (exact_features(np.zeros(1), np.array([[v]]), n, n) for v, n in ((4.0, 4), (25.0, 3)))
    shift = np.zeros(8)
    shift[5] = 3
    assert frechet_distance(first * axis, second * axis + shift) == pytest.approx(9 + (5 - 2) ** 2, abs=1e-9)


def test_few_pictures_of_one_distribution_have_a_large_distance():
    draw = lambda count, seed: np.random.default_rng(seed).standard_normal((count, 32))  # noqa: E731
    few, many = frechet_distance(draw(10, 0), draw(10, 1)), frechet_distance(draw(2000, 0), draw(2000, 1))
    assert few > 10 and many < 1


def test_one_picture_has_no_covariance():
    with pytest.raises(UserError, match="two pictures"):
        frechet_distance(np.zeros((1, 4)), np.ones((5, 4)))
    with pytest.raises(UserError, match="two pictures"):
        frechet_distance(np.ones((5, 4)), np.zeros((0, 4)))


def test_a_method_with_one_picture_has_no_distance_and_the_report_shows_the_others(inception, tmp_path):
    write_folder(tmp_path / "views", {"one": files_of(0)})
    (tmp_path / "few/one").mkdir(parents=True)
    shutil.copy(tmp_path / "views/one/002.png", tmp_path / "few/one")  # the target of one of the pairs
    given = EvaluateConfig(
        views=[f"{tmp_path}/views"], predictions=[f"{tmp_path}/few", f"{tmp_path}/views"], output=f"{tmp_path}/scores",
        pairs=3, metrics=["fid"], weights=MetricWeights(inception=str(inception)),
    )  # fmt: skip
    metrics = evaluate(given, None)
    assert {one["method"]: one["pictures"] for one in metrics["distances"]} == {"views": 3, "repeat": 3}
    assert "views: FID of few is left out, which needs 2 pictures." in metrics["left_out"]
    page = (tmp_path / "scores/report.html").read_text()
    assert page.count(" (3 pictures)</td>") == 2


def test_clip_fid_is_refused_for_another_model(clip_folder):
    loaded = load_metrics(["clip_fid"], MetricWeights(clip=str(clip_folder)), CPU)
    assert not loaded.set_metrics
    assert loaded.missing[0].startswith("clip_fid: ") and "ViT-B/32" in loaded.missing[0]


def test_pictures_of_floats_are_refused(inception, clip_encoder):
    (fid,) = load_metrics(["fid"], MetricWeights(inception=str(inception)), CPU).set_metrics
    for one in (fid, clip_fid(clip_encoder, "")):
        with pytest.raises(ValueError, match="uint8"):
            one.features([np.full((32, 32, 3), np.nan)])


def test_clip_fid_is_the_distance_of_the_embeddings(clip_encoder):
    pictures, others = ([picture(32, seed) for seed in seeds] for seeds in (range(20), range(20, 45)))
    one = clip_fid(clip_encoder, "")
    first, second = one.features(pictures), one.features(others)
    assert first.shape == (20, 6)
    assert one.distance(first, second) == pytest.approx(matrix_root_distance(first, second), abs=1e-4)
