"""The documents name only links, files, modules, options and command lines that exist."""

import importlib
import re
import shlex
from functools import cache
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from conf.command import register
from conf.overrides import option_types, prepare
from pipeline.sources import SOURCES
from tests.support.command import PROJECT
from tests.support.entries import CONF, ENTRIES

DOCUMENTS = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/*.md")])
HISTORY = ("CHANGELOG.md", "log.md")  # name options of the past
PACKAGES = ("conf", "rendering", "pipeline", "training", "inference", "tests")
EXAMPLES = ("boxes", "unipc")  # CONTRIBUTING.md describes how to add these
OUTPUTS = ("field.npz",)  # files that commands write
documents = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)


@cache
def schemas(stage: str, name: str) -> tuple[tuple[str, type], ...]:
    """Return the prefix and the dataclass of each part of a command's options."""
    config = importlib.import_module(f"{stage}.{name}")
    whole = getattr(config, "".join(word.capitalize() for word in name.split("_")) + "Config")
    groups = SOURCES if name == "render" else {}
    return (("", whole), *((f"{option.split('/')[0]}.", schema) for option, schema in groups.items()))


@cache
def options() -> set[str]:
    """Return the full names of all options of all commands, and the groups of their YAML files."""
    names = {option for entry in ENTRIES for option in option_types(schemas(*entry))}
    return names | {path.name for path in CONF.glob("*/*") if path.is_dir()}


def code(text: str) -> list[str]:
    """Return the pieces of text in backticks, and the indented or fenced lines."""
    fenced = re.findall(r"^ *```[^\n]*\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    text = re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)
    lines = [line for block in fenced for line in block.splitlines()] + re.findall(r"^ {4}(\S.*)", text, re.MULTILINE)
    return lines + [piece.replace("\n", " ") for piece in re.findall(r"`([^`]+)`", text)]


def anchors(path: Path) -> set[str]:
    """Return the anchors of the headings, as GitHub writes them."""
    headings = re.findall(r"^#+ (.+)", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@documents
def test_link_targets_exist(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if "://" not in target:
            name, _, anchor = target.partition("#")
            file = path.parent / name if name else path
            assert file.exists(), target
            assert not anchor or anchor in anchors(file), target


@documents
def test_named_files_exist(path):
    """A name may leave out leading folders, as in `model/zero123.py`."""
    files = [
        f"/{file.relative_to(PROJECT)}"
        for package in (*PACKAGES, "docs", "jobs")
        for file in (PROJECT / package).rglob("*.*")
    ]
    for piece in code(path.read_text()):
        for name in re.findall(r"(?<![\w*/…-])[\w./-]+\.(?:py|sh|md|npz)\b", piece):
            if not any(word in name for word in (*EXAMPLES, *OUTPUTS, "pipeline_zero1to3")):
                assert any(file.endswith("/" + name) for file in files), name


@documents
def test_named_modules_and_members_exist(path):
    dotted = rf"(?<![\w./])(?:{'|'.join(PACKAGES)})(?:\.[A-Za-z_]\w*)+(?!\w|/|\.\w|=)"
    for name in {name for piece in code(path.read_text()) for name in re.findall(dotted, piece)}:
        if Path(name).suffix not in (".yaml", ".md", ".csv", ".json"):
            parts = name.split(".")
            candidates = [(PROJECT.joinpath(*parts[:length]), parts[length:]) for length in range(len(parts), 0, -1)]
            module, names = next(
                (file, rest) for file, rest in candidates if file.is_dir() or file.with_suffix(".py").exists()
            )
            source = (module / "__init__.py" if module.is_dir() else module.with_suffix(".py")).read_text()
            assert all(re.search(rf"\b{word}\b", source) for word in names), name


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if path.name not in HISTORY], ids=lambda path: path.name)
def test_named_options_exist(path):
    groups = {option.split(".")[0] for option in options() if "." in option} - set(PACKAGES)
    for piece in code(path.read_text()):
        for name in re.findall(rf"(?<![\w./])(?:{'|'.join(groups)})\.\w+(?=$|[=\s`])", piece):
            if Path(name).suffix not in (".py", ".yaml", ".json", ".csv") and not name.startswith("cc_projection"):
                assert name in options(), name


@documents
def test_command_lines_compose(path):
    lines = [found for piece in code(path.read_text()) for found in re.findall(r"python -m (\w+\.\w+)( .*)?", piece)]
    for module, rest in lines:
        stage, name = module.split(".")
        words = [
            word
            for word in shlex.split(rest.rstrip("'") if rest.count("'") % 2 else rest, comments=True)
            if word != "…" and "=" in word
        ]
        if (stage, name) not in ENTRIES or any(word in rest for word in EXAMPLES):
            continue
        whole, *groups = schemas(stage, name)
        register(whole[1], name, SOURCES if groups else {})
        folder = str(CONF / ("encoding" if name == "encode" else stage))
        with initialize_config_dir(folder, version_base="1.3"):
            composed = compose(name, prepare(words, option_types([whole, *groups])))
        missing = OmegaConf.missing_keys(composed)
        assert not missing or "…" in rest, (module, rest, missing)
        if not missing:
            assert isinstance(OmegaConf.to_object(composed), whole[1])
