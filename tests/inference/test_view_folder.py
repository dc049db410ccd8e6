"""Folders of views: only files of earlier runs are replaced."""

import json
import os
import resource
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from conf.options import UserError
from inference import report, sample, text_to_views
from inference.benchmark import main as benchmark
from inference.config import BenchmarkConfig, ReportConfig, SampleConfig, Sampling, TextToViewsConfig
from inference.views.picture_views import view_settings, write_inputs
from inference.views.view_folder import ViewSet, is_written, own_files, write_views
from training.model.hardware.precision import Precision

# Settings in a poses.json of the version before `precision` was shared with training.
RECORDED_SETTINGS = {
    "checkpoint": "outputs/run/model", "poses": [], "orbit": 2, "grid": "", "cameras": "", "input_camera": 0,
    "samples": 1, "elevation": "none", "cutout": "none", "fill": None, "precision": "bfloat16", "compile": False,
    "sampling": {
        "steps": 20, "guidance": 3.0, "image_guidance": None, "unconditional": "after_projection",
        "sampler": "dpm_solver", "eta": 1.0, "seed": 0,
    },
}  # fmt: skip
ABOUT = {"sha256": "1", "weights": "2"}
PICTURE = Image.new("RGB", (16, 16), "white")


def write(folder: Path, views: int) -> None:
    write_views(folder, ViewSet(PICTURE, [[PICTURE]] * views, None, None), [(0.0, 0.0, 0.0)] * views, ABOUT)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_only_views_named_in_poses_json_are_replaced(tmp_path):
    write(tmp_path, 3)
    (tmp_path / "003.png").write_text("mine")
    write(tmp_path, 1)
    (tmp_path / "views.gif").write_text("mine")
    write(tmp_path, 1)
    mine = {"003.png", "views.gif"}
    assert set(os.listdir(tmp_path)) == {"000.png", "input.png", "poses.json", "views.png"} | mine
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"holds 003\.png and 1 others"):
        write(tmp_path, 4)
    assert contents(tmp_path) == before


def test_poses_json_cannot_name_other_files(tmp_path):
    record = {**ABOUT, "views": [{"files": ["../x.png", "/etc/passwd", "photo.jpg", "000.png"]}]}
    (tmp_path / "poses.json").write_text(json.dumps(record))
    assert own_files(tmp_path) == {"000.png", "input.png", "views.png", "poses.json"}


def test_files_of_a_killed_run_are_replaced_by_the_next(tmp_path):
    """The process ends at its n-th rename or removal of a file, for each n."""
    for moment in range(99):
        folder = tmp_path / str(moment)
        write(folder, 2)
        (folder / "000-1.png").write_text("mine")
        if not (child := os.fork()):
            left = moment

            def end(event: str, _: object) -> None:
                nonlocal left
                if event in ("os.rename", "os.remove", "os.rmdir"):
                    left -= 1
                    if left < 0:
                        os._exit(9)

            sys.addaudithook(end)
            write(folder, 1)
            os._exit(0)
        killed = os.waitpid(child, 0)[1]
        write(folder, 3)
        views = {"000.png", "001.png", "002.png"}
        extra = {"input.png", "poses.json", "views.png", "views.mp4", "views.gif", "000-1.png"}
        assert set(os.listdir(folder)) == views | extra
        assert (folder / "000-1.png").read_text() == "mine"
        if not killed:
            break
    assert 5 < moment < 98


@pytest.mark.parametrize(
    ("name", "text"),
    [("000.png", ""), ("input.png", ""), ("views.mp4", ""), ("poses.json", '{"frames": []}'), ("poses.json", "[1]")],
)
def test_foreign_files_are_refused_before_the_checkpoint_is_read(name, text, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text(text)
    PICTURE.save(tmp_path / "a.png")
    given = {"checkpoint": "nowhere", "orbit": 2, "output": str(out)}
    for run in (
        lambda: sample.main(SampleConfig(image=str(tmp_path / "a.png"), **given)),
        lambda: text_to_views.main(TextToViewsConfig(prompt="a chair", **given)),
        lambda: sample.main(SampleConfig(image=str(tmp_path), **{**given, "output": str(tmp_path / "other")})),
    ):
        (tmp_path / "other").mkdir(exist_ok=True)
        (tmp_path / "other/a").exists() or (tmp_path / "other/a").symlink_to(out)
        with pytest.raises(UserError, match=f"holds {name}"):
            run()
    assert contents(out) == {name: text.encode()}


@pytest.mark.parametrize("name", ["prompt.png", "prompt.json"])
def test_a_foreign_prompt_file_is_refused(name, tmp_path):
    (tmp_path / name).write_text('{"prompt": "my notes"}')
    with pytest.raises(UserError, match=f"holds {name}"):
        text_to_views.main(TextToViewsConfig("nowhere", orbit=2, prompt="a chair", output=str(tmp_path)))
    assert contents(tmp_path) == {name: b'{"prompt": "my notes"}'}


def test_the_folder_of_the_pictures_is_refused_as_output(tmp_path):
    (tmp_path / "chair").mkdir()
    PICTURE.save(tmp_path / "chair/chair.png")
    (tmp_path / "link").symlink_to("chair")
    before = contents(tmp_path)
    given = SampleConfig("nowhere", orbit=2, image=str(tmp_path / "chair"))
    for image, output in (("chair", "chair"), ("chair", "link"), ("chair", "."), ("chair/chair.png", "chair")):
        with pytest.raises(UserError, match="image="):
            sample.main(replace(given, image=str(tmp_path / image), output=f"{tmp_path / output}/"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/inputs.png").write_text("mine")
    with pytest.raises(UserError, match=r"inputs\.png"):
        sample.main(replace(given, output=str(tmp_path / "out")))
    assert contents(tmp_path) == {**before, "out/inputs.png": b"mine"}


def test_only_reports_are_overwritten_by_reports(tmp_path):
    (tmp_path / "report.html").write_text("mine")
    (tmp_path / "benchmark.md").write_text("mine")
    with pytest.raises(UserError, match=r"report\.html"):
        report.main(ReportConfig("nowhere", "nowhere", str(tmp_path / "report.html")))
    with pytest.raises(UserError, match=r"benchmark\.md"):
        benchmark(BenchmarkConfig("nowhere", output=str(tmp_path)))
    assert contents(tmp_path) == {"report.html": b"mine", "benchmark.md": b"mine"}


def test_settings_under_a_former_option_name_are_the_same_request(tmp_path):
    sampling = {"steps": 5, "unconditional": "trained"}
    about = {**ABOUT, "image": "a.png", "poses": [[0.0, 0.0, 0.0]], "settings": {"fill": None, "sampling": sampling}}
    write_views(tmp_path, ViewSet(PICTURE, [[PICTURE]], None, None), [(0.0, 0.0, 0.0)], about)
    record = json.loads((tmp_path / "poses.json").read_text())
    for settings, same in (({"steps": 5, "null": "trained"}, True), ({"steps": 5, "null": "after_projection"}, False)):
        record["settings"]["sampling"] = settings
        (tmp_path / "poses.json").write_text(json.dumps(record))
        assert is_written(tmp_path, about) is same


@pytest.mark.parametrize(("precision", "same"), [("bfloat16", True), ("float32", False)])
def test_settings_of_an_earlier_version_are_the_same_request(tmp_path, precision, same):
    recorded = {**ABOUT, "image": "a.png", "poses": [[0.0, 0.0, 0.0]], "settings": RECORDED_SETTINGS}
    write_views(tmp_path, ViewSet(PICTURE, [[PICTURE]], None, None), [(0.0, 0.0, 0.0)], recorded)
    config = SampleConfig(
        "elsewhere", orbit=2, elevation="none", cutout="none", precision=Precision(precision),
        sampling=Sampling(steps=20, sampler="dpm_solver"),
    )  # fmt: skip
    assert is_written(tmp_path, {**recorded, "settings": view_settings(config)}) is same


@pytest.mark.parametrize("lost", ["000.png", "input.png", "views.png", "views.mp4", "views.gif"])
def test_views_without_a_file_are_written_again(tmp_path, lost):
    about = ABOUT | {"settings": {}}
    write_views(tmp_path, ViewSet(PICTURE, [[PICTURE]] * 2, None, None), [(0.0, 0.0, 0.0)] * 2, about)
    assert is_written(tmp_path, about)
    (tmp_path / lost).unlink()
    assert not is_written(tmp_path, about)


def test_the_sheet_of_many_inputs_needs_few_open_files(tmp_path):
    names = [f"{i:03d}" for i in range(60)]
    for name in names:
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8), "red").save(tmp_path / name / "input.png")
    most, highest = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 30, highest))
    try:
        write_inputs(tmp_path, names)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, highest))
    with Image.open(tmp_path / "inputs.png") as sheet:
        assert sheet.getpixel((10, 10)) == (255, 0, 0)
