"""Inputs that an evaluation cannot score end it with a sentence before a picture is predicted."""

import pytest

from conf.options import UserError
from inference.evaluation.config import EvaluateConfig
from inference.evaluation.evaluation import evaluate
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
