r"""Prepare the words of a command line for Hydra, whose grammar interprets `(`, `,`, `=`, `~`, `#` and quotes.

The type of an option decides: the value of a text option (`str`) is quoted before Hydra reads it, and a list may be
written without brackets. Values that are quoted for Hydra (`output='"a b"'`), Hydra's escapes (`\,`), interpolations
(`${oc.env:HOME}`), `null`, sweeps under --multirun and options of other types keep Hydra's meaning.
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf.errors import GrammarParseError
from omegaconf.grammar_parser import parse

from conf.options import UserError

WORD = re.compile(r"(?P<name>\+{0,2}(?P<key>[\w.]+))=(?P<value>.*)", re.DOTALL)
HYDRA_QUOTED = re.compile(r"""'(\\.|[^'\\])*'|"(\\.|[^"\\])*\"""", re.DOTALL)
INTERPOLATION = re.compile(r"\$\{[^}]*\}")
HYDRA_ESCAPE = re.compile(r"\\([\\()\[\]{}:=, \t])")
ITEM = re.compile(r"""\s*('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|(?:\$\{[^}]*\}|\\.|[^,])*?)\s*(?:,|$)""", re.DOTALL)


def option_types(schemas: Iterable[tuple[str, type]]) -> dict[str, Any]:
    """Return the types of all options by their full names, `X` for `X | None`.

    Args:
        schemas: the prefix of the options' names and the dataclass for each part, as `[("", RenderConfig), …]`.
    """
    types: dict[str, Any] = {}
    for prefix, schema in schemas:
        hints = get_type_hints(schema)
        for field in fields(schema):
            default = field.default if field.default_factory is MISSING else field.default_factory()
            if is_dataclass(default) and not isinstance(default, type):
                types |= option_types([(f"{prefix}{field.name}.", type(default))])
            else:
                types[prefix + field.name] = _without_none(hints[field.name])
    return types


def renamed_options(schemas: Iterable[tuple[str, type]]) -> dict[str, str]:
    """Return the new full names of renamed options by their former ones, as `{"data.without": "data.exclude"}`.

    Args:
        schemas: as for `option_types`.
    """
    renamed: dict[str, str] = {}
    for prefix, schema in schemas:
        for field in fields(schema):
            default = field.default if field.default_factory is MISSING else field.default_factory()
            if is_dataclass(default) and not isinstance(default, type):
                renamed |= renamed_options([(f"{prefix}{field.name}.", type(default))])
            if former := field.metadata.get("formerly"):
                renamed[prefix + former] = prefix + field.name
    return renamed


def refuse_former_names(words: Iterable[str], renamed: Mapping[str, str]) -> None:
    """Refuse words that give an option by its former name.

    Args:
        words: the arguments of the command.
        renamed: the new names by the former ones, from `renamed_options`.

    Raises:
        UserError: a word uses a former name; the message names the new one.
    """
    for word in words:
        name = word.partition("=")[0].lstrip("+~")
        if name in renamed:
            raise UserError(f"{name}: this option was renamed; write {word.replace(name, renamed[name], 1)}")


def _without_none(hint: Any) -> Any:
    kinds = [kind for kind in get_args(hint) if kind is not NoneType]
    return kinds[0] if NoneType in get_args(hint) and len(kinds) == 1 else hint


def prepare(words: Iterable[str], types: Mapping[str, Any], multirun: bool = False) -> list[str]:
    """Return the words `name=value` of a command line as Hydra has to read them.

    Args:
        words: the arguments of the command. Flags, and words for options without a type, are left as they are.
        types: the type of each option, from `option_types`.
        multirun: whether a comma may mean a sweep.

    Raises:
        UserError: a word is not text in UTF-8, or gives several values to an option that takes one.
    """
    return [_prepare(word, types, multirun) for word in words]


def _prepare(word: str, types: Mapping[str, Any], multirun: bool) -> str:
    try:
        word.encode()
    except UnicodeEncodeError:
        raise UserError(f"{word!a}: not UTF-8 text; rename the file or folder") from None
    found = WORD.fullmatch(word)
    kind = types.get(found["key"]) if found else None
    if not found or not kind or (multirun and "," in found["value"] and _may_sweep(word)):
        return word
    value = found["value"]
    if kind is str:
        return f"{found['name']}={_quote(value)}"
    if get_origin(kind) is list and not multirun and value.lower() != "null" and not INTERPOLATION.fullmatch(value):
        return f"{found['name']}={_bracket(word, value, get_args(kind)[0])}"
    if not multirun and "," in value and (override := _read(word)) and override.is_sweep_override():
        raise UserError(f"{word}: this option takes one value; --multirun runs the command once for each")
    return word


def _quote(value: str) -> str:
    """Return the value of a text option, such as a path, in Hydra's quotes."""
    if not value or value.lower() == "null" or HYDRA_QUOTED.fullmatch(value):
        return value
    text = HYDRA_ESCAPE.sub(r"\1", value)
    if text == "~" or text.startswith("~/"):  # a shell expands it only at the beginning of a word
        text = os.path.expanduser(text)
    if "${" in text:
        try:
            parse(text)
        except GrammarParseError:
            text = text.replace("${", r"\${")
    return QuotedString(text, Quote.single).with_quotes()


def _bracket(word: str, value: str, kind: Any) -> str:
    """Return the value of a list option in brackets, text items quoted."""
    if kind is not str and value:
        override = _read(word)
        return f"[{value}]" if override and not isinstance(override.value(), list) else value
    inside = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    items = [found[1] for found in ITEM.finditer(inside)]
    return f"[{','.join(map(_quote, filter(None, items)))}]"


def _may_sweep(word: str) -> bool:
    override = _read(word)
    return override is None or override.is_sweep_override()


def _read(word: str) -> Override | None:
    """Parse a word by Hydra's grammar; return None where it is invalid."""
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException:
        return None
