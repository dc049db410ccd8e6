"""The benchmark's arithmetic and a run of it."""

import re

import numpy as np
import pytest
from PIL import Image

from rendering import benchmark
from rendering.blender_process import Rendered
from tests.support.command import command


def test_a_larger_image_is_composited_before_it_is_averaged():
    """One opaque black and three transparent pixels average to 0.75 on white."""
    fine = np.zeros((512, 512, 4), np.uint8)
    fine[..., :3] = 77
    fine[::2, ::2] = [0, 0, 0, 255]
    assert benchmark._on_white(Image.fromarray(fine)) == pytest.approx(0.75)


def test_an_object_is_imported_once_and_rendered_twelve_times():
    three_views = Rendered({}, {"load": 1.0, "render": 2.5, "encode": 0.5}, cpu=8.0)
    # Two CPU seconds of import, and six for three views: twenty-four for twelve.
    assert benchmark._cpu_for_all_views(three_views, 3) == pytest.approx(26)


def test_the_table_estimates_the_cost_for_all_objects():
    rows = [
        benchmark.Comparison("shoe", 300.0, 10.0, 40.0, 43.0, 0.10),
        benchmark.Comparison("bowl", 100.0, 2.0, 36.0, 35.5, 0.20),
    ]
    text = benchmark.table(rows)
    assert "| shoe | 300.0 | 10.00 | 30.0× | 40.0 | 43.0 | 10% |" in text
    assert "| mean | 200.0 | 6.00 | 33.3× | 38.0 | 39.2 | 15% |" in text
    assert "bowl, -0.5 dB" in text
    # 798,759 objects at 6 s are 1,331 hours: 20 $ at 0.015 $.
    assert "| 1,000 cores | 44.4 hours | 1.3 hours |" in text and "| 666 $ | 20 $ |" in text


def test_a_folder_that_does_not_exist_is_refused(tmp_path):
    done = command("rendering.benchmark", tmp_path / "none")
    assert done.returncode == 2 and done.stderr.startswith("error: ") and str(tmp_path / "none") in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_comparison_of_a_real_object(corner, tmp_path):
    words = [corner.parent, "--objects", 1, "--views", 1, "--reference", 64, "--output", tmp_path / "table.md"]
    done = command("rendering.benchmark", *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"report: {tmp_path / 'table.md'}"
    ratio, paper, fast = re.search(r"\| mean .*? ([\d.]+)× \| ([\d.]+) \| ([\d.]+) \|", done.stdout).groups()
    assert float(ratio) > 5 and float(fast) > float(paper) - 1
