"""Values on command lines reach the configuration unchanged, including characters special to Hydra's grammar."""

import importlib
from dataclasses import dataclass
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from conf.command import register
from conf.options import UserError, option
from conf.overrides import option_types, prepare, refuse_former_names, renamed_options
from pipeline.config import RenderConfig
from pipeline.sources import SOURCES
from rendering.settings import RenderSettings
from tests.support.command import command
from tests.support.entries import CONF, ENTRIES

# Names with the special characters of Hydra's grammar, OmegaConf and shells.
TEXTS = [
    "chair (1).png",
    "a,b",
    "epoch=3-step=100.ckpt",
    "it's",
    'a "b"',
    "'a' and 'b'",
    "#1",
    "a # b",
    "~backup",
    "file.glb~",
    " leading and trailing ",
    "a\\b",
    "C:\\models\\chair",
    "back\\",
    "椅子é.glb",
    "a[0]{b}",
    "[a]",
    "{a: b}",
    "range(1,3)",
    "$5",
    "a${b",
    "${not an interpolation}",
    "100%*?|;&<>!`^",
    "a\tb",
    "1e3",
    "0010",
    "1_000",
    "3.10",
    "True",
    "inf",
    "-x",
    "+a@b:c/d",
    "s3://bucket/a=b/(c)",
]


RENDER = option_types([("", RenderConfig), *(("objects.", source) for source in SOURCES.values())])


def config_of(stage: str, name: str) -> type:
    words = "".join(word.capitalize() for word in name.split("_"))
    return getattr(importlib.import_module(f"{stage}.{name}"), f"{words}Config")


def composed(stage: str, name: str, config: type, words: list[str]) -> Any:
    register(config, name, SOURCES if name == "render" else {})
    folder = "encoding" if name == "encode" else stage
    with initialize_config_dir(str(CONF / folder), version_base="1.3"):
        return compose(name, words)


@pytest.mark.parametrize(("stage", "name"), ENTRIES)
def test_text_options_accept_any_text(stage, name):
    config = config_of(stage, name)
    types = option_types([("", config)])
    options = [key for key, kind in types.items() if kind is str]
    assert options or name == "plot"
    given = dict(zip(options, TEXTS, strict=False))
    words = prepare([f"{key}={text}" for key, text in given.items()], types)
    typed = composed(stage, name, config, words)
    assert {key: OmegaConf.select(typed, key) for key in given} == given


def test_paths_accept_any_text():
    for first in range(0, len(TEXTS), 5):
        keys = ("output", "objects.path", "wandb.project", "wandb.entity", "cluster.address")
        given = dict(zip(keys, TEXTS[first:], strict=False))
        typed = render("objects=folder", *(f"{key}={text}" for key, text in given.items()))
        assert {key: OmegaConf.select(typed, key) for key in given} == given


def render(*words: str) -> Any:
    return composed("pipeline", "render", RenderConfig, prepare(words, RENDER))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("'a, b'", "a, b"),
        ('"a, b"', "a, b"),
        ("'it\\'s'", "it's"),
        ("a\\,b\\=c\\ d", "a,b=c d"),
        ("a\\\\b", "a\\b"),
        ("${oc.env:PLACE}/views", "/some place/views"),
        ("'${oc.env:PLACE}'", "/some place"),
        ("${seed}", "7"),
        ("~", "/home/someone"),
        ("~/a b", "/home/someone/a b"),
        ("'~/a'", "~/a"),
        ("", ""),
    ],
)
def test_quotes_escapes_and_interpolations_keep_their_meaning(value, text, monkeypatch):
    monkeypatch.setenv("PLACE", "/some place")
    monkeypatch.setenv("HOME", "/home/someone")
    assert render("seed=7", f"output={value}").output == text


def test_null_is_none():
    assert render("cluster.address=null").cluster.address is None


@pytest.mark.parametrize(
    ("value", "items"),
    [
        ("chair", ["chair"]),
        ("bow_(weapon),chair", ["bow_(weapon)", "chair"]),
        ("[bow_(weapon), 'a, b']", ["bow_(weapon)", "a, b"]),
        ("a\\,b,c d", ["a,b", "c d"]),
        ("${oc.env:NOWHERE,chair},sofa=2", ["chair", "sofa=2"]),
        ("1e3,True", ["1e3", "True"]),
        ("[]", []),
        ("", []),
    ],
)
def test_lists_of_texts(value, items):
    assert list(render("objects=objaverse", f"objects.lvis={value}").objects.lvis) == items


@pytest.mark.parametrize(
    ("value", "poses"),
    [
        ("[[90,0,2]]", [[90.0, 0.0, 2.0]]),
        ("[90,0,2],[45,1.5,3]", [[90.0, 0.0, 2.0], [45.0, 1.5, 3.0]]),
    ],
)
def test_poses_accept_integers_and_floats(value, poses):
    words = [f"renderer.poses={value}", "renderer.cameras=fixed", f"renderer.views={len(poses)}", "renderer.radius=1,2"]
    renderer = OmegaConf.to_object(render(*words)).renderer
    assert renderer.poses == poses and all(isinstance(number, float) for pose in renderer.poses for number in pose)
    assert renderer.radius == [1.0, 2.0]


@pytest.mark.parametrize("poses", [[[90, "a", 2]], [90, 0, 2], [None]])
def test_poses_that_are_not_numbers_are_refused(poses):
    with pytest.raises(UserError, match="poses"):
        RenderSettings(poses=poses)


def test_commas_are_a_sweep_with_multirun_only():
    words = ["output=a,b", "seed=1,2", "retry=timeout,crashed", "objects.lvis=[a,b],[c]"]
    assert prepare(words, RENDER, multirun=True) == words
    with pytest.raises(UserError, match="seed=1,2"):
        prepare(["seed=1,2"], RENDER)


def test_an_argument_that_is_not_utf8_is_refused():
    with pytest.raises(UserError, match="UTF-8"):
        prepare(["output=\udcff"], RENDER)


@dataclass(frozen=True)
class Part:
    exclude: list[str] = option([], "objects to leave out", formerly="without")


@dataclass(frozen=True)
class Whole:
    part: Part = option(Part(), "a part")
    device: str = option("auto", "where it runs", formerly="gpu")


def test_former_names_are_refused_by_naming_the_new_ones():
    renamed = renamed_options([("", Whole), ("objects.", Part)])
    assert renamed == {"part.without": "part.exclude", "gpu": "device", "objects.without": "objects.exclude"}
    refuse_former_names(["part.exclude=a", "device=cpu", "without=a", "--cfg", "job"], renamed)
    for word in ("part.without=a,b", "+part.without=[]", "~part.without"):
        with pytest.raises(UserError, match=r"part\.exclude"):
            refuse_former_names(["device=cpu", word], renamed)
    done = command("training.finetune", "data.path=x", "data.without=flat")
    assert done.returncode == 2 and "data.exclude=flat" in done.stderr and len(done.stderr.splitlines()) == 1
