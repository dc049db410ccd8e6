"""The library prepares pictures as the command does, and samples the same views."""

import importlib
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageDraw

from conf.options import UserError
from inference import Prepared, prepare
from tests.support.command import PROJECT, command

POSES = [[0, 90, 0], [-30, 0, 0]]


@pytest.fixture(scope="module")
def photograph(tmp_path_factory):
    """A disc on white far from the middle of a picture that is not square and has an EXIF rotation."""
    picture = Image.new("RGB", (120, 80), "white")
    ImageDraw.Draw(picture).ellipse((10, 20, 50, 60), fill=(200, 60, 30))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(path := tmp_path_factory.mktemp("photograph") / "chair.png", exif=exif)
    return path


@pytest.fixture(scope="module")
def by_command(folder, photograph, tmp_path_factory):
    """Return a function that runs the command with options and returns its input and views."""
    results = {}
    for word, steps in (("", 50), ("fill=0.8", 4), ("cutout=none", 4)):
        out = tmp_path_factory.mktemp("out")
        words = [f"checkpoint={folder}", f"image={photograph}", f"output={out}", f"poses={POSES}".replace(" ", "")]
        done = command("inference.sample", *words, "elevation=none", f"sampling.steps={steps}", *filter(None, [word]))
        assert done.returncode == 0, done.stderr
        results[word] = [np.asarray(Image.open(out / name)) for name in ("input.png", "000.png", "001.png")]
    return results


def test_the_readme_example_samples_the_views_of_the_command(folder, photograph, by_command, tmp_path, monkeypatch):
    (example,) = re.findall(r"```python\n(.*?)```", (PROJECT / "README.md").read_text(), re.DOTALL)
    (tmp_path / "105000.ckpt").symlink_to(folder)
    (tmp_path / "chair.png").symlink_to(photograph)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(example, names)
    for view, written in zip(names["views"], by_command[""][1:], strict=True):
        np.testing.assert_array_equal(np.asarray(view), written)


@pytest.mark.parametrize(("word", "options"), [("fill=0.8", {"fill": 0.8}), ("cutout=none", {"cutout": "none"})])
def test_options_have_the_same_effect_as_in_the_command(novel_view, photograph, by_command, word, options):
    written = by_command[word]
    np.testing.assert_array_equal(np.asarray(novel_view.prepare(photograph, **options).image), written[0])
    for view, expected in zip(novel_view(photograph, POSES, steps=4, **options), written[1:], strict=True):
        np.testing.assert_array_equal(np.asarray(view), expected)
    assert (written[0] != by_command[""][0]).any()


def test_paths_images_and_arrays_are_prepared_equally(novel_view, photograph, by_command):
    upright = Image.open(photograph).transpose(Image.Transpose.ROTATE_270)
    grey = np.asarray(upright.convert("L"))
    for picture in (photograph, str(photograph), Image.open(photograph), upright, np.asarray(upright)):
        np.testing.assert_array_equal(np.asarray(novel_view.prepare(picture).image), by_command[""][0])
    np.testing.assert_array_equal(
        np.asarray(novel_view.prepare(grey.astype(np.uint16) * 257).image), np.asarray(novel_view.prepare(grey).image)
    )
    prepared = prepare(photograph, resolution=16)
    assert isinstance(prepared, Prepared)
    for view, expected in zip(novel_view(prepared, POSES), by_command[""][1:], strict=True):
        np.testing.assert_array_equal(np.asarray(view), expected)


def test_fill_0_without_cutout_keeps_the_pixels_of_a_square_render(novel_view, front):
    as_it_is = {"cutout": "none", "fill": 0}
    np.testing.assert_array_equal(np.asarray(novel_view.prepare(front, **as_it_is).image), np.asarray(front))
    ghost = front.copy()
    ghost.putalpha(Image.fromarray(np.random.default_rng(1).integers(0, 256, (16, 16), dtype=np.uint8)))
    alpha = np.asarray(ghost.getchannel("A"), float)[..., None] / 255
    expected = np.asarray(front) * alpha + 255 * (1 - alpha)
    for options in (as_it_is, {"fill": 0}):
        np.testing.assert_allclose(np.asarray(novel_view.prepare(ghost, **options).image), expected, atol=1)


@pytest.mark.parametrize("options", [{"fill": 2}, {"fill": float("nan")}, {"cutout": "magic"}, {"cutout": "no.onnx"}])
def test_a_photograph_that_cannot_be_prepared_is_refused(novel_view, options):
    photograph = Image.effect_noise((60, 40), 90)
    with pytest.raises(UserError, match=rf"{next(iter(options))}=.*; |{next(iter(options))}=.*must be"):
        novel_view(photograph, POSES, **options)


@pytest.mark.parametrize("name", ["inference", "inference.preprocess", "inference.elevation", "inference.web"])
def test_a_package_exports_what_it_lists_and_imports_it_on_use(name):
    exported = importlib.import_module(name).__all__
    assert exported == sorted(exported) and all(hasattr(importlib.import_module(name), one) for one in exported)
    code = f"import sys, {name}; print(sorted({{'torch', 'gradio', 'cv2'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True).stdout == "[]\n"
