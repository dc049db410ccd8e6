"""Every YAML composes, invalid options are one error line with exit code 2, and --help lists every option."""

import importlib
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from subprocess import PIPE

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from conf.command import register, run
from pipeline.shards import write_shard
from tests.support.command import PROJECT, command
from tests.support.entries import CONF, ENTRIES
from training.config import PlotConfig

# Command and required options for each folder of configurations with groups.
GROUPED = {
    "pipeline": ("pipeline.render", []),
    "encoding": ("training.encode", ["path=x"]),
    "training": ("training.finetune", ["data.path=x"]),
    "inference": ("inference.report", ["views=x", "run=x"]),
    "inference/cluster": ("inference.evaluate", ["views=[x]"]),
}


def test_every_command_has_a_console_script():
    project = tomllib.loads((CONF.parent / "pyproject.toml").read_text())["project"]
    assert sorted(project["scripts"].values()) == sorted(f"{stage}.{name}:command" for stage, name in ENTRIES)


def test_a_missing_extra_is_named_in_the_error(monkeypatch, capsys):
    def main(config: object) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr("sys.argv", ["plot"])
    with pytest.raises(SystemExit) as stopped:
        run(main, PlotConfig, "training", "plot")
    assert stopped.value.code == 2 and ".[train]" in capsys.readouterr().err


@pytest.mark.parametrize(("stage", "name"), ENTRIES)
def test_help_names_every_option(stage, name):
    done = command(f"{stage}.{name}", "--help")
    assert done.returncode == 0
    assert f"python -m {stage}.{name}" in done.stdout
    config = importlib.import_module(f"{stage}.{name}")  # imports its options
    for field in getattr(
        config, "".join(word.capitalize() for word in name.split("_")) + "Config"
    ).__dataclass_fields__:
        assert field in done.stdout


@pytest.mark.parametrize("path", sorted(CONF.glob("*/*/*.yaml")), ids=lambda path: str(path.relative_to(CONF)))
def test_every_option_of_every_group_composes(path):
    stage, group = path.parts[-3], path.parts[-2]
    entry, words = GROUPED.get(f"{stage}/{group}") or GROUPED[stage]
    name, module = entry.split(".")[1], importlib.import_module(entry)
    config = next(value for key, value in vars(module).items() if key.lower() == f"{name}config")
    register(config, name, getattr(module, "SOURCES", {}))
    added = "+" if group in ("cluster", "experiment") else ""
    needed = ["objects.path=x"] if path.stem == "folder" else words
    with initialize_config_dir(str(CONF / stage), version_base="1.3"):
        typed = OmegaConf.to_object(compose(name, [f"{added}{group}={path.stem}", *needed]))
    assert isinstance(typed, config)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["pipeline.render", "rendrer.samples=3"], "error: Key 'rendrer' not in 'RenderConfig', at rendrer"),
        (["pipeline.render", "renderer.sampels=3"], "error: Key 'sampels' not in 'RenderSettings'"),
        (["pipeline.render", "renderer.samples=many"], "error: Value 'many' of type 'str' could not be converted"),
        (["pipeline.render", "objects=folder"], "error: objects.path is not given; add objects.path=…"),
        (["pipeline.render", "objects=cloud"], "error: In 'render': Could not find 'objects/cloud'"),
        (["pipeline.render", "objects=folder", "objects.path=nowhere"], "error: objects.path=nowhere: "),
        (["pipeline.render", "objects=procedural", "renderer.resolution=5"], "error: renderer.resolution=5: "),
        # `auto` would find the cluster of a test in another process.
        (
            ["pipeline.render", "objects=procedural", "+cluster=aws", "cluster.address=127.0.0.1:9"],
            "error: no Ray cluster answers at 127.0.0.1:9; ",
        ),
        (["pipeline.render", "objects=procedural", "cluster.address=head"], "error: cluster.address=head: "),
        (["pipeline.render", "retry=slow"], "error: retry=slow: "),
        (["pipeline.render", "objects.licenses=mit"], "error: objects.licenses=mit: "),
        (["pipeline.render", "objects.licenses=by,mit"], "error: objects.licenses=mit: "),
        (["pipeline.verify", "path=nowhere"], "error: nowhere: "),
        (["pipeline.verify", f"path={'x' * 300}"], f"error: {Path('x' * 300).absolute()}: file name too long; "),
        (["pipeline.pack", "path=nowhere"], "error: path=nowhere: "),
        (["pipeline.export", "path=nowhere"], "error: nowhere: "),
        (["pipeline.inspect", "path=tests"], "error: tests: "),
        (["training.finetune", "data.path=nowhere"], "error: nowhere: "),
        (
            ["training.convert", "source=nowhere", "target=x"],
            "error: there is no folder nowhere/unet and no file nowhere",
        ),
        (["training.plot", f"runs={'x' * 300}"], f"error: {'x' * 300}/metrics.csv: file name too long; "),
        (["training.convert", "source=nowhere"], "error: target is not given; add target=…"),
        (["training.finetune", "data.path=x", "trainer.max_steps=x"], "error: Value 'x' of type 'str' could not be"),
    ],
)
def test_an_invalid_option_is_one_error_line_and_exit_code_2(words, sentence, tmp_path):
    has_output = words[0] in (
        "pipeline.render",
        "pipeline.pack",
        "pipeline.export",
        "training.finetune",
        "training.encode",
    )
    done = command(*words, *([f"output={tmp_path}/out"] if has_output else []))
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(sentence)
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert not list(tmp_path.rglob("*.tar")) and not list(tmp_path.rglob("*.html"))


@pytest.mark.parametrize(
    ("entry", "groups"),
    [
        ("pipeline.status", []),
        ("pipeline.render", ["cluster", "experiment", "objects", "renderer"]),
        ("training.encode", ["cluster", "model"]),
        ("inference.report", ["experiment"]),
    ],
)
def test_help_lists_the_groups_that_the_command_takes(entry, groups):
    listed = re.findall(r"^Group (\w+): ", command(entry, "--help").stdout, re.MULTILINE)
    assert listed == groups


def test_help_may_be_cut_off_by_the_reader():
    help = subprocess.Popen(
        [sys.executable, "-m", "training.finetune", "--help"], cwd=PROJECT, stdout=PIPE, stderr=PIPE, bufsize=0
    )
    assert help.stdout and help.stderr
    help.stdout.close()
    assert help.stderr.read() == b"" and help.wait() == -signal.SIGPIPE


def test_the_exit_code_of_multirun_is_that_of_the_worst_job(tmp_path):
    write_shard(str(tmp_path / "good"), "views-000000", [], [])
    write_shard(str(tmp_path / "bad"), "views-000000", [], [])
    (tmp_path / "bad/views-000000.tar").unlink()
    paths = ",".join(f"{tmp_path}/{name}" for name in ("bad", "good"))
    done = command("pipeline.verify", "--multirun", f"path={paths}", TMPDIR=str(tmp_path))
    assert done.returncode == 1
    assert not (PROJECT / "multirun").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"good", "bad"}


def jobs_of(monkeypatch, *words):
    """Run a command that does nothing; return the exit code and the options of its jobs."""
    jobs = list[PlotConfig]()
    monkeypatch.setattr("sys.argv", ["plot", *words])
    with pytest.raises(SystemExit) as stopped:
        run(jobs.append, PlotConfig, "training", "plot")
    return stopped.value.code, jobs


@pytest.mark.parametrize(
    ("output", "outputs"),
    [
        ("a.png,b.png", ["a.png", "b.png"]),
        ("${hydra:job.num}.png", ["0.png", "1.png"]),
        ("out/${runs.0}.svg", ["out/one.svg", "out/two.svg"]),
        ("null", [None, None]),
    ],
)
def test_jobs_of_a_sweep_have_their_own_outputs(monkeypatch, tmp_path, output, outputs):
    monkeypatch.chdir(tmp_path)
    words = ["runs=[one]" if "," in output else "runs=[one],[two]", f"output={output}"]
    code, jobs = jobs_of(monkeypatch, "--multirun", *words)
    assert code == 0 and [job.output for job in jobs] == outputs
    assert not list(tmp_path.iterdir())
    jobs_of(monkeypatch, "--multirun", *words, "hydra.sweep.dir=sweep")
    assert (tmp_path / "sweep/multirun.yaml").exists()


@pytest.mark.parametrize("output", ["curves.png", "curves.png,./curves.png", "s3://bucket/a,s3://bucket//a/"])
def test_a_sweep_into_one_output_is_refused_before_its_first_job(monkeypatch, capsys, tmp_path, output):
    monkeypatch.chdir(tmp_path)
    runs = "runs=[one]" if "," in output else "runs=[one],[two]"
    assert jobs_of(monkeypatch, "-m", runs, f"output={output}") == (2, [])
    error = capsys.readouterr().err
    assert error.startswith(f"error: output={output.split(',')[-1]}: ") and len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_wrong_option_of_a_later_job_is_refused_before_the_first(monkeypatch, capsys):
    assert jobs_of(monkeypatch, "-m", "output=a.png,[b]") == (2, [])
    assert len(capsys.readouterr().err.splitlines()) == 1
