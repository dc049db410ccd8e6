"""The benchmark as a command without optional packages; all variants compute the same training."""

import csv
import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from conf.options import UserError
from tests.support.command import PROJECT, command
from tests.support.small_model import SMALL
from training.benchmark import main
from training.benchmarking.variants import OURS, PLAIN, ablations, begin
from training.config import BenchmarkConfig
from training.model.architecture import build

TINY = [
    "model=tiny",
    "model.resolution=16",
    "model.unet.channels=[16,32]",
    "model.unet.heads=2",
    "model.encoder.image_size=16",
    "batch_sizes=1,2",
    "steps=1",
    "rounds=1",
    "device=cpu",
]
# Modules that a bare PyTorch image with diffusers, transformers and hydra lacks.
ABSENT = ("bpy", "ray", "wandb", "lightning", "deepspeed", "webdataset", "fsspec.implementations.s3", "s3fs", "psutil")


@pytest.mark.slow
def test_benchmark_runs_without_lightning_deepspeed_and_ray(tmp_path):
    words = ["training.benchmark", *TINY, f"output={tmp_path}/out"]
    blocked = f"""
import runpy, sys
for name in {ABSENT}: sys.modules[name] = None
sys.argv = {words}
runpy.run_module("training.benchmark", run_name="__main__", alter_sys=True)
"""
    done = subprocess.run([sys.executable, "-c", blocked], cwd=PROJECT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"report: {tmp_path}/out/benchmark.md"
    report = json.loads((tmp_path / "out/benchmark.json").read_text())
    rows = report["rows"]
    sizes = [(row["variant"], row["batch_size"]) for row in rows if row["table"] == "batch sizes"]
    assert sizes == [("ours", 1), ("plain", 1), ("ours", 2), ("plain", 2)]
    parts = [row for row in rows if row["table"] == "parts"]
    assert {row["batch_size"] for row in parts} == {2} and len({row["variant"] for row in parts}) == len(parts)
    for row in rows:
        assert row["failure"] == "" and row["images_per_second"] > 0
        assert row["ms"] == pytest.approx(1000 * row["batch_size"] / row["images_per_second"], rel=0.01)
        assert row["mfu"] is None and row["peak_gb"] is None, "neither is known of a CPU"
    with (tmp_path / "out/benchmark.csv").open(newline="") as file:
        assert [row["variant"] for row in csv.DictReader(file)] == [row["variant"] for row in rows]
    text = (tmp_path / "out/benchmark.md").read_text()
    assert all(f"| {row['variant']} | {row['batch_size']} |" in text for row in rows)


def test_all_variants_have_the_same_losses(model):
    """With equal weights, pairs and noise the losses are equal; only encoding consumes other random numbers."""
    ours = replace(OURS, compile=False, autotune=False)

    def losses(variant) -> list[float]:
        step = begin(build(SMALL), variant, 4, torch.float32, seed=3)
        return [float(step(number)) for number in range(3)]

    expected = losses(ours)
    assert len(set(expected)) == 3
    for variant in ablations(ours):
        if variant.latents:
            assert losses(variant) == pytest.approx(expected, rel=1e-4), variant.name
    assert losses(replace(PLAIN, one_token=True, channels_last=True)) == pytest.approx(losses(PLAIN), rel=1e-4)


def test_a_trained_encoder_learns_in_every_variant():
    """Its embeddings cannot be cached, so the losses of ours are those of plain."""
    trained = replace(SMALL, train_image_encoder=True)
    ours = replace(OURS, compile=False, autotune=False, latents=False)

    def losses(variant) -> list[float]:
        model = build(trained)
        step = begin(model, variant, 4, torch.float32, seed=3)
        before = [weight.clone() for weight in model.image_encoder.parameters()]
        found = [float(step(number)) for number in range(3)]
        assert not all(map(torch.equal, before, model.image_encoder.parameters()))
        return found

    assert losses(ours) == pytest.approx(losses(replace(PLAIN, one_token=True)), rel=1e-3)


def test_ablations_remove_each_optimisation_and_add_them_one_by_one():
    variants = {variant.name: variant for variant in ablations(OURS)}
    assert variants["ours without compile"] == replace(OURS, name="ours without compile", compile=False)
    assert variants["ours with checkpointing"].checkpointing and not OURS.checkpointing
    added = [variant for name, variant in variants.items() if name.startswith("…")]
    assert added[0] == replace(PLAIN, name="… + latents", latents=True)
    assert replace(added[-1], compile=True, name="ours") == OURS


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"batch_sizes": [0]}, r"^batch_sizes=\[0\]: "),
        ({"device": "tpu"}, "^device=tpu: "),
        ({"model": replace(SMALL, resolution=4096, patch=1), "device": "cpu"}, "not even one pair fits"),
    ],
)
def test_invalid_options_are_refused_with_one_sentence(wrong, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        main(BenchmarkConfig(**wrong))
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_memory_and_utilisation_are_reported(tmp_path):
    done = command("training.benchmark", *TINY, "device=cuda", "compile=false", f"output={tmp_path}/out")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "out/benchmark.json").read_text())["rows"]
    assert all(row["peak_gb"] is not None for row in rows)
