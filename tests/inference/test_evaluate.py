"""The command: killed and given again, and what a user can get wrong."""

import time

import pytest

from inference.evaluation.config import EvaluateConfig, set_name
from tests.support.command import Started, command
from tests.support.dots import write_dots

SETTINGS = ["device=cpu", "pairs=2", "sampling.steps=3", "batch=2"]


@pytest.fixture(scope="module")
def views(tmp_path_factory) -> str:
    root = tmp_path_factory.mktemp("evaluate") / "views"
    write_dots(root, 4, resolution=16, views=3)
    return str(root)


@pytest.mark.slow
def test_a_killed_command_continues_to_the_same_scores(folder, views, tmp_path):
    words = ["inference.evaluate", f"checkpoint={folder}", f"views={views}", *SETTINGS, "sampling.steps=25"]
    killed, calm = tmp_path / "killed", tmp_path / "calm"
    threads = {"OMP_NUM_THREADS": "1"}  # rounding depends on their number, which follows the idle cores
    process = Started(*words, f"output={killed}", **threads)
    while process.poll() is None and not list(killed.rglob("*.png")):
        time.sleep(0.05)
    process.kill()
    process.communicate()
    first = {path: path.stat().st_mtime_ns for path in killed.rglob("*.png")}
    assert first and not (killed / "metrics.json").exists()
    for output in (killed, calm):
        done = command(*words, f"output={output}", **threads)
        assert done.returncode == 0, done.stderr
    assert all(path.stat().st_mtime_ns == written for path, written in first.items())
    for path in sorted(calm.rglob("*.png")) + [calm / "per_view.csv", calm / "metrics.json"]:
        assert (killed / path.relative_to(calm)).read_bytes() == path.read_bytes()


def test_a_set_has_the_name_of_its_folder_and_stays_within_the_output(tmp_path, monkeypatch):
    (tmp_path / "chairs/inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "chairs/inner")
    names = {".": "inner", "..": "chairs", "./": "inner", "../inner/": "inner", "s3://bucket/chairs/": "chairs"}
    assert {folder: set_name(folder) for folder in names} == names
    assert list(EvaluateConfig(meshes="..", truth="truth").mesh_folders) == ["chairs"]


def test_an_error_is_one_sentence_and_writes_nothing(folder, views, tmp_path):
    done = command(
        "inference.evaluate", f"checkpoint={folder}", f"views={views}", "training=nowhere", f"output={tmp_path}/scores"
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr == "error: nowhere: no such folder; give the output of the previous stage\n"
    assert not list(tmp_path.iterdir())
