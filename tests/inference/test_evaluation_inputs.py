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
from tests.support.released import files_of, write_folder


def config(root, **options) -> EvaluateConfig:
    given = {"views": [f"{root}/views"], "output": f"{root}/scores", "metrics": ["psnr_db"], "methods": ["model"]}
    return EvaluateConfig(**given | {"predictions": f"{root}/views"} | options)


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


def test_the_output_of_another_kind_of_run_is_refused(tmp_path):
    write_folder(tmp_path / "views", {"one": files_of(0)})

    def load(config):
        return Predictor(lambda requests: np.stack([one.picture for one in requests]), 16, "known")

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
