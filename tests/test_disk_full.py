"""A full disk is one error line that names the output, with exit code 2 and no partial files."""

import subprocess
from pathlib import Path

import pytest

from tests.support.command import command
from tests.support.released import files_of, write_folder


@pytest.fixture
def small_disk(tmp_path):
    """Mount a disk of 16 KiB, a quarter of which folders occupy."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"needs to mount a disk of its own: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """Return the error line of the command."""
    *_, sentence = done.stderr.splitlines()
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert sentence.startswith("error: ") and "no space left on device" in sentence
    return sentence


def released(folder: Path) -> Path:
    return write_folder(folder, {f"o{i}": files_of(i, side=64) for i in range(2)})


def test_a_copy_of_a_temporary_file_names_the_output(small_disk, tmp_path):
    output = small_disk / "views"
    done = command("pipeline.pack", f"path={released(tmp_path / 'in')}", f"output={output}", "workers=1")
    assert f"{output}: " in refused(done)
    assert [path.name for path in output.iterdir()] == ["plan.json"]


def test_a_write_in_another_process_names_the_output(small_disk, tmp_path):
    assert command("pipeline.pack", f"path={released(tmp_path / 'in')}", f"output={tmp_path / 'views'}").returncode == 0
    output = small_disk / "views_release"
    done = command("pipeline.export", f"path={tmp_path / 'views'}", f"output={output}", "workers=2")
    assert f"{output}: " in refused(done)
    assert not list(output.glob("*.part"))


def test_a_full_temporary_folder_is_named_with_its_variable(small_disk, tmp_path):
    words = [f"path={released(tmp_path / 'in')}", f"output={tmp_path / 'views'}", "workers=1"]
    sentence = refused(command("pipeline.pack", *words, TMPDIR=str(small_disk)))
    assert f"{small_disk}" in sentence and "TMPDIR" in sentence
    assert not list((tmp_path / "views").glob("*.part")) and not list((tmp_path / "views").glob("*.tar"))
