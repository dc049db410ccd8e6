"""The benchmark compares variants that sample the same views, in one run."""

import json

import pytest

from conf.options import UserError
from inference.benchmarking.community_pipeline import community_pipeline
from inference.benchmarking.sampling_benchmark import benchmark
from inference.config import BenchmarkConfig, Sampling
from inference.novel_view import NovelView
from tests.support.command import command
from tests.support.originals import TINY, original_state, write_original


def test_variants_sample_the_same_views_and_are_measured(tmp_path):
    checkpoint, out = write_original(tmp_path / "105000.ckpt", original_state(TINY)), tmp_path / "out"
    words = (
        "inference.benchmark",
        f"checkpoint={checkpoint}",
        f"output={out}",
        "views=2",
        "rounds=2",
        "sampling.steps=2",
    )
    done = command(*words, "device=cpu", "precision=float32")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"report: {out / 'benchmark.md'}"
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if line[:2] == "| "]
    assert [row[0] for row in rows[2:]] == ["ours", "single calls"]
    assert [row[1] for row in rows[2:]] == ["float32", "float32"] and [row[5] for row in rows[2:]] == ["0.00", "0.00"]
    seconds = json.loads((out / "benchmark.json").read_text())
    assert all(len(rounds) == 2 and min(rounds) > 0 for rounds in seconds.values())
    missing = command(*words, "device=cpu", "community=nothing.py", f"output={tmp_path / 'other'}")
    assert (missing.returncode, missing.stderr) == (2, "error: community=nothing.py: there is no such file\n")


def test_a_checkpoint_of_stable_zero123_is_measured(stable_folder, tmp_path):
    config = BenchmarkConfig(
        checkpoint=str(stable_folder), output=str(tmp_path), device="cpu", views=2, rounds=1, sampling=Sampling(steps=2)
    )
    assert benchmark(config) == 0 and (tmp_path / "benchmark.md").exists()


@pytest.mark.parametrize(
    ("code", "reason"), [("def (:", "SyntaxError"), ("1 / 0", "ZeroDivisionError"), ("", "AttributeError")]
)
def test_a_file_without_the_community_pipeline_is_refused(tmp_path, code, reason):
    model = NovelView.load(write_original(tmp_path / "105000.ckpt", original_state(TINY)), "cpu", "float32").model
    (tmp_path / "pipeline.py").write_text(code)
    with pytest.raises(UserError, match=rf"community=.*pipeline\.py: has no .*{reason}.*; give diffusers' file"):
        community_pipeline(tmp_path / "pipeline.py", model, BenchmarkConfig(checkpoint="105000.ckpt"))


def test_our_renderer_and_a_dense_one_give_the_same_canvases(tmp_path):
    words = ("inference.benchmark", "subject=reconstruction", "rounds=1", "device=cpu", f"output={tmp_path}")
    done = command(*words)
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if line[:2] == "| "]
    assert len(rows) == 2 + 2
    # Values of samples with weights below 1e-4 are left out, in fog up to 1e-4 in each of some hundred samples.
    assert all(float(row[4]) < 0.03 for row in rows[2:])
    seconds = json.loads((tmp_path / "benchmark.json").read_text())
    assert {kind: [len(rounds) for rounds in fields.values()] for kind, fields in seconds.items()} == {
        "ours": [1, 1],
        "dense": [1, 1],
    }
    without = command("inference.benchmark", f"output={tmp_path / 'other'}")
    assert without.returncode == 2 and "checkpoint" in without.stderr
