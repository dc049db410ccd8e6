"""Inputs that an evaluation cannot score end it with a sentence before a picture is predicted."""

import json

import numpy as np
import pytest

from conf.options import UserError
from inference.evaluation.config import EvaluateConfig
from inference.evaluation.evaluation import evaluate
from inference.evaluation.meshes.mesh_evaluation import start_or_resume
from inference.evaluation.methods.predictions import Predictor
from pipeline.samples import npy_array, npy_bytes
from pipeline.shards import ObjectRecord, write_shard
from tests.support.dots import sample_of_dots
from tests.support.released import files_of, write_folder


def config(root, **options) -> EvaluateConfig:
    given = {"views": [f"{root}/views"], "output": f"{root}/scores", "metrics": ["psnr_db"], "methods": ["model"]}
    return EvaluateConfig(**given | {"predictions": f"{root}/views"} | options)


def repeated(config, side: int = 32) -> Predictor:
    return Predictor(lambda requests: np.stack([one.picture for one in requests]), side, "known")


def write_samples(root, samples, index: int = 0) -> None:
    write_shard(str(root), f"views-{index:06d}", samples.items(), [ObjectRecord(uid, "ok") for uid in samples])


def test_a_damaged_picture_is_named(tmp_path):
    files = files_of(1)
    files["001.png"] = files["001.png"][: len(files["001.png"]) // 2]
    write_folder(tmp_path / "views", {"good": files_of(0), "wrong": files})
    with pytest.raises(UserError, match="object wrong: view 001 is damaged"):
        evaluate(config(tmp_path), None)


def test_cameras_that_no_benchmark_takes_are_refused(tmp_path):
    files = files_of(0)
    for name in ("000.npy", "001.npy", "002.npy"):
        files[name] = npy_bytes(npy_array(files[name]) * [2, 2, 2, 1])
    write_folder(tmp_path / "views", {"scaled": files})
    for benchmark in ("all", "folder"):
        with pytest.raises(UserError, match="a matrix is not a rotation"):
            evaluate(config(tmp_path, benchmark=[benchmark]), None)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda cameras: cameras.reshape(len(cameras), 12), "shape"),
        (lambda cameras: cameras * np.nan, "finite"),
        (lambda cameras: cameras * 0, "rotation"),
        (lambda cameras: cameras * [3, 3, 3, 1], "rotation"),
        (lambda cameras: cameras * [[[-1], [1], [1]]], "rotation"),  # mirrored
        (lambda cameras: cameras * [1, 1, 1, 0], "centre"),
        (lambda cameras: cameras.astype("U"), "not numbers"),
        (lambda cameras: cameras[0, 0, 0], "shape"),
    ],
)
def test_the_cameras_of_every_object_are_checked_before_a_picture_is_predicted(tmp_path, damage, reason):
    samples = {"first": sample_of_dots(0), "second": sample_of_dots(1)}
    samples["second"]["cameras.npy"] = npy_bytes(damage(npy_array(samples["second"]["cameras.npy"])))
    write_samples(tmp_path / "views", samples)
    with pytest.raises(UserError, match=f"views=.*object second: .*{reason}"):
        evaluate(config(tmp_path, predictions=""), repeated)
    assert not list(tmp_path.rglob("*.png"))


@pytest.mark.parametrize("option", ["views", "references"])
def test_a_uid_that_two_shards_hold_is_refused(tmp_path, option):
    for name in {"views", option}:
        write_samples(tmp_path / name, {"twice": sample_of_dots(0)})
    write_samples(tmp_path / option, {"twice": sample_of_dots(1)}, index=1)
    options = {} if option == "views" else {"references": [f"{tmp_path}/references"]}
    with pytest.raises(UserError, match=f"{option}=.*: twice is the uid of 2 objects"):
        evaluate(config(tmp_path, predictions="", **options), repeated)
    assert not list(tmp_path.rglob("*.png"))


def test_references_whose_pictures_are_not_those_of_their_cameras_are_refused(tmp_path):
    write_samples(tmp_path / "views", {"one": sample_of_dots(0)})
    for name, change in {
        "first": {"000.webp": None},  # would shift all pictures against their cameras
        "last": {"003.webp": None},
        "moved": {"003.webp": None, "004.webp": sample_of_dots(0)["003.webp"]},
        "cut": {"001.webp": sample_of_dots(0)["001.webp"][:100]},
    }.items():
        sample = {key: value for key, value in (sample_of_dots(0) | change).items() if value is not None}
        write_samples(tmp_path / name, {"one": sample})
        given = config(tmp_path, predictions="", references=[f"{tmp_path}/{name}"], output=f"{tmp_path}/of-{name}")
        with pytest.raises(UserError, match=f"references=.*{name}: object one: "):
            evaluate(given, repeated)


def test_the_output_of_another_kind_of_run_is_refused(tmp_path):
    write_folder(tmp_path / "views", {"one": files_of(0)})

    def load(config):
        return repeated(config, 16)

    for first, second, sentence in ((None, load, "had no checkpoint"), (load, None, "had a checkpoint")):
        given = config(tmp_path, output=f"{tmp_path}/{sentence}")
        evaluate(given, first)
        with pytest.raises(UserError, match=f"output=.*the run there {sentence}; choose another output"):
            evaluate(given, second)
    record = tmp_path / "had a checkpoint/evaluation.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"version": 1}))
    with pytest.raises(UserError, match="another version"):
        evaluate(given, load)
    start_or_resume(str(tmp_path / "had a checkpoint"), {})  # of an evaluation of meshes
    with pytest.raises(UserError, match=r"evaluation\.json of another command"):
        evaluate(given, load)
