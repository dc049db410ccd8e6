"""The wheel, installed outside the checkout, holds every file of the packages and runs."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.command import PROJECT

PACKAGES = ("conf", "rendering", "pipeline", "training", "inference")


def run(*words: object, **options) -> str:
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Return a copy of the sources, because setuptools writes next to them."""
    source = tmp_path_factory.mktemp("source")
    for name in (*PACKAGES, "LICENSES"):
        shutil.copytree(PROJECT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, source)
    return source


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    run(*pip, "--wheel-dir", folder, source)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory) -> Path:
    site = tmp_path_factory.mktemp("site")
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--target", site, wheel)
    return site


def test_the_wheel_holds_every_file_of_the_packages(wheel, source):
    files = {path for name in PACKAGES for path in (source / name).rglob("*") if path.is_file()}
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == {str(path.relative_to(source)) for path in files}


def test_scripts_and_library_run_outside_the_checkout(site, tmp_path):
    outside = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(site)}}
    assert "objects_per_shard" in run(site / "bin/zero123-render", "--help", **outside)
    composed = run(site / "bin/zero123-render", "objects=procedural", "renderer=fast", "--cfg", "job", **outside)
    assert "separate_coincident" in composed
    assert run(sys.executable, "-c", "import inference; print(inference.__file__)", **outside).startswith(f"{site}/")
