"""Every YAML composes; what does not fit is refused in one sentence with exit code 2; --help teaches."""

import importlib
from pathlib import Path

import pytest
from command import command
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from conf.command import register

CONF = Path(__file__).parents[1] / "conf"
ENTRIES = [("pipeline", "render"), ("pipeline", "verify"), ("pipeline", "inspect")]
# Every file of every group, with the entry that it belongs to and what that entry asks for.
OPTIONS = [
    ("pipeline.render", path, ["objects.path=x"] if path.stem == "folder" else [])
    for path in sorted((CONF / "pipeline").glob("*/*.yaml"))
]


@pytest.mark.parametrize(("stage", "name"), ENTRIES)
def test_help_names_every_option(stage, name):
    done = command(f"{stage}.{name}", "--help")
    assert done.returncode == 0
    assert f"python -m {stage}.{name}" in done.stdout
    config = importlib.import_module(f"{stage}.config")
    for field in getattr(config, f"{name.capitalize()}Config").__dataclass_fields__:
        assert field in done.stdout


@pytest.mark.parametrize(("entry", "path", "words"), OPTIONS)
def test_every_option_of_every_group_composes(entry, path, words):
    stage, name = entry.split(".")
    module = importlib.import_module(entry)
    config = next(value for key, value in vars(module).items() if key.lower() == f"{name}config")
    register(config, name, getattr(module, "SOURCES", {}))
    option = f"{path.parent.name}={path.stem}"
    added = "+" if path.parent.name in ("cluster", "experiment") else ""
    with initialize_config_dir(str(CONF / stage), version_base="1.3"):
        typed = OmegaConf.to_object(compose(name, [f"{added}{option}", *words]))
    assert isinstance(typed, config)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["pipeline.render", "rendrer.samples=3"], "error: Key 'rendrer' not in 'RenderConfig', at rendrer"),
        (["pipeline.render", "renderer.sampels=3"], "error: Key 'sampels' not in 'Recipe', at renderer.sampels"),
        (["pipeline.render", "renderer.samples=many"], "error: Value 'many' of type 'str' could not be converted"),
        (["pipeline.render", "objects=folder"], "error: objects.path is not given; add objects.path=…"),
        (["pipeline.render", "objects=cloud"], "error: In 'render': Could not find 'objects/cloud'"),
        (["pipeline.render", "objects=folder", "objects.path=nowhere"], "error: objects.path: there is no folder"),
        (["pipeline.render", "objects=procedural", "renderer.resolution=5"], "error: renderer.resolution=5 is outside"),
        (["pipeline.render", "objects=procedural", "+cluster=aws"], "error: there is no Ray cluster"),
        (["pipeline.verify", "path=nowhere"], "error: there is no folder nowhere"),
        (["pipeline.inspect", "path=tests"], "error: tests holds no finished views shard"),
    ],
)
def test_what_a_user_can_get_wrong_is_one_sentence(words, sentence, tmp_path):
    done = command(*words, *([f"output={tmp_path}/out"] if "pipeline.render" in words else []))
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(sentence)
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert not list(tmp_path.rglob("*.tar")) and not list(tmp_path.rglob("*.html"))
