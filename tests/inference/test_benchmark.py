"""The benchmark compares variants that sample the same views, in one run."""

import json

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
