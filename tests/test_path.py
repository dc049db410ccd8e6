"""All stages of `make demo` at a small size: objects, views, model, novel views, report."""

import importlib.util
import os

import pytest
from PIL import Image

from tests.support.command import command
from tests.support.environment import long_tmpdir_and_no_home

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("bpy"), reason="needs Blender, the `render` extra")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def run(outputs):
    """Render a dozen procedural objects and train for a few steps, with a long TMPDIR and without a home."""
    place = long_tmpdir_and_no_home(outputs)
    rendered = command(
        "pipeline.render", "+experiment=demo", "objects.count=12", "renderer.samples=2",
        f"output={outputs / 'views'}", **place,
    )  # fmt: skip
    assert rendered.returncode == 0, rendered.stderr
    assert "ray" in os.listdir(place["TMPDIR"])
    trained = command(
        "training.finetune", "+experiment=demo", f"data.path={outputs / 'views'}", f"output={outputs / 'run'}",
        "trainer.max_steps=4", "data.batch_size=4", "data.global_batch=4", "trainer.validate_every=2", "sample.steps=2",
        "sample.rows=2", "data.workers=1",
        **place,
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    return outputs / "run"


def test_the_report_shows_pictures_and_is_self_contained(outputs, run):
    page = outputs / "report.html"
    words = [f"views={outputs / 'views'}", f"run={run}", f"output={page}", "rows=3", "sampling.steps=2"]
    done = command(
        "inference.report", "+experiment=demo", *words, "orbits=1", "orbit_views=3", f"others={outputs / 'views'}",
        "other_orbits=1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"report: {page}"
    html = page.read_text()
    # Every view of every object, and five orbits, each with its input, three views and their animation: two pictures,
    # another object, and a held-out object before and after the training.
    assert html.count("data:image/webp;base64,") == 12 * 16 + 5 * (1 + 3 + 1)
    assert html.count("data:image/png;base64,") == 3 * 4  # input, truth, before, sampled
    assert "<svg" in html and "held out" in html
    assert 'src="http' not in html and "<link" not in html and "<script" not in html


def test_the_trained_model_samples_the_requested_views(outputs, run):
    grid = sorted((run / "samples").glob("*.png"))[-1]
    Image.open(grid).crop((0, 0, 64, 64)).save(outputs / "input.png")
    done = command(
        "inference.sample", f"checkpoint={run / 'model'}", f"image={outputs / 'input.png'}",
        "poses=[[20,45,0],[0,180,0]]", f"output={outputs / 'new'}", "sampling.steps=2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert Image.open(outputs / "new/001.png").size == (64, 64)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["views=nowhere"], "nowhere: no such folder"),
        (["run=docs"], "there is no folder docs/model"),
        (["others=nowhere"], "nowhere: no such folder"),
    ],
)
def test_a_report_without_views_or_model_is_refused(outputs, run, words, sentence):
    done = command("inference.report", f"views={outputs / 'views'}", f"run={run}", f"output={outputs}/no.html", *words)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {sentence}") and len(done.stderr.splitlines()) == 1, done.stderr
    assert not (outputs / "no.html").exists()
