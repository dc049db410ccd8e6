"""Compose a command line into a typed, frozen dataclass with Hydra; code below `main` sees no Hydra.

Each stage has a folder of YAML files here (`conf/pipeline`, `conf/training`, `conf/encoding`, `conf/inference`); the
dataclasses that type them are in the package of the stage. `run` composes both, and converts errors that the user can
correct into one line and exit code 2.
"""

import errno
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from conf.environment import prepare_environment
from conf.options import FieldError, UserError
from conf.overrides import option_types, prepare, refuse_former_names, renamed_options
from conf.sweep import output_of, require_own_outputs, sweep_folder

Config = TypeVar("Config")
CONF = Path(__file__).parent
# Main modules of each extra in pyproject.toml.
EXTRAS = {
    "render": ("bpy", "objaverse", "plyfile", "psutil", "pyarrow", "ray", "requests"),
    "train": ("torch", "lightning", "deepspeed", "diffusers", "transformers", "safetensors", "matplotlib"),
    "views": (
        "OpenEXR",
        "av",
        "cv2",
        "embreex",
        "fast_simplification",
        "gradio",
        "manifold3d",
        "onnxruntime",
        "pooch",
        "pydantic",
        "scipy",
        "skimage",
        "trimesh",
        "xatlas",
    ),
}
TERMINATED = threading.Event()  # set by SIGTERM


def run(
    main: Callable[[Config], int | None],
    config: type[Config],
    stage: str,
    name: str,
    groups: Mapping[str, type] | None = None,
    help: str | None = None,
) -> None:
    """Compose `conf/<stage>/<name>.yaml` with the command line, call `main` with it, and exit with the code it returns.

    `config` types all options, `groups` ("group/option" -> dataclass) those of groups that differ in shape.
    """
    if {"-h", "--help"} & set(sys.argv[1:]):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `--help | head` ends without a message
        print(_help(config, stage, name, groups or {}, help or ""))
        sys.exit(0)
    schemas = [("", config), *((f"{option.split('/')[0]}.", schema) for option, schema in (groups or {}).items())]
    multirun = bool({"-m", "--multirun"} & set(sys.argv))
    try:
        prepare_environment()
        refuse_former_names(sys.argv[1:], renamed_options(schemas))
        sys.argv[1:] = prepare(sys.argv[1:], option_types(schemas), multirun)
    except UserError as error:
        _refuse(str(error))
    register(config, name, groups or {})
    jobs = list[Any]()  # one, or those of --multirun

    def compose(composed: Any) -> None:
        with _sentences(schemas):
            jobs.append(OmegaConf.to_object(composed))

    # Hydra prints a page about an error and exits with 1 unless HYDRA_FULL_ERROR lets exceptions through.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    with _sentences(schemas):
        _end_in_order()
        with sweep_folder() if multirun else nullcontext():
            hydra.main(version_base="1.3", config_path=str(CONF / stage), config_name=name)(compose)()
        require_own_outputs(jobs)
    code = 0
    for job in jobs:
        with _sentences(schemas, output_of(job)[1]):
            code = max(code, main(job) or 0)
    sys.exit(code)


def _end_in_order() -> None:
    """Treat the first SIGTERM as Ctrl-C, so that contexts are left and temporary files removed.

    Later ones are ignored: `timeout`, container runtimes and Slurm send several. One that was ignored before stays so.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        if not TERMINATED.is_set():
            TERMINATED.set()
            raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, handle)


@contextmanager
def _sentences(schemas: Sequence[tuple[str, type]], output: str = "") -> Iterator[None]:
    """Turn errors that the user can correct into one sentence and exit code 2, signals into 128 + number.

    Args:
        schemas: (prefix, dataclass) of the command's options, for errors that name a field.
        output: Path that the command writes to, for errors that name no file.
    """
    try:
        yield
    except FieldError as error:
        _refuse(_option_prefix(type(error.settings), schemas) + str(error))
    except UserError as error:
        _refuse(str(error))
    except MissingMandatoryValue as error:
        _refuse(f"{error.full_key} is not given; add {error.full_key}=… (see --help)")
    except OverrideParseException as error:
        _refuse(_unreadable(error.override))
    except (HydraException, OmegaConfBaseException) as error:
        _refuse(f"{_one_line(error)} (see --help)")
    except ModuleNotFoundError as error:
        extra = next((name for name, modules in EXTRAS.items() if error.name in modules), None)
        if extra is None:
            raise
        _refuse(f"{error.name} is not installed; pip install '.[{extra}]'")
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        _refuse(f"{error.filename}: {(error.strerror or 'cannot be written').lower()}; choose another path")
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            _refuse(f"{error.filename}: {(error.strerror or 'not a valid path').lower()}; choose another path")
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):
            raise
        _refuse(_no_room(error, output))
    except KeyboardInterrupt:
        sys.unraisablehook = lambda _: None  # a progress bar interrupted in its constructor fails when it is deleted
        print("\nstopped; repeat the command to continue", file=sys.stderr)
        sys.exit(128 + (signal.SIGTERM if TERMINATED.is_set() else signal.SIGINT))


def _option_prefix(settings: type, schemas: Sequence[tuple[str, type]]) -> str:
    """Return the path of the options of the dataclass `settings`, such as `renderer.` (else empty)."""
    for prefix, schema in schemas:
        if schema is settings:
            return prefix
        defaults = [(item.name, _default(item)) for item in fields(schema)]
        nested = [(f"{prefix}{name}.", type(value)) for name, value in defaults if is_dataclass(value)]
        if found := _option_prefix(settings, nested):
            return found
    return ""


def _no_room(error: OSError, output: str) -> str:
    """Name the file that a full disk, a quota, a limit or a read-only disk keeps from being written.

    A copy error names the source first; a write error names no file, so the fuller of the output disk and the temporary
    disk is reported.
    """
    temporary = tempfile.gettempdir()
    places = [place for place in (output, temporary) if place and "://" not in place]
    place = Path(str(error.filename2 or error.filename or min(places, key=_free_bytes))).absolute()
    elsewhere = "choose another path"
    if output and place.is_relative_to(Path(output).absolute()):
        place = Path(output)  # rather than a file below it, whose name means nothing to the user
    elif place.is_relative_to(temporary):
        place = Path(temporary).resolve()  # TMPDIR may be a link of `prepare_environment`
        elsewhere = "set TMPDIR to another folder"
    return f"{place}: {(error.strerror or 'cannot be written').lower()}; make room, or {elsewhere}"


def _free_bytes(path: str) -> int:
    """Return the free bytes on the disk of a path that need not exist."""
    whole = Path(path).absolute()
    return shutil.disk_usage(next(folder for folder in (whole, *whole.parents) if folder.exists())).free


def register(config: type, name: str, groups: Mapping[str, type]) -> None:
    """Register the dataclasses with Hydra by the names that the YAML files extend: `<name>_schema`."""
    store = ConfigStore.instance()
    store.store(name=f"{name}_schema", node=_open(config))
    for option, schema in groups.items():
        group, choice = option.split("/")
        store.store(group=group, name=f"{choice}_schema", node=_open(schema))


def _open(schema: type) -> Any:
    """Return the structured config of a frozen dataclass, made writable so that overrides apply."""
    node = OmegaConf.structured(schema)

    def unlock(part: Any) -> None:
        part._set_flag("readonly", None)
        for key in range(len(part)) if OmegaConf.is_list(part) else part:
            child = part._get_node(key)
            if OmegaConf.is_config(child) and not child._is_none() and not child._is_missing():
                unlock(child)

    unlock(node)
    return node


def _refuse(sentence: str) -> None:
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(2)


def _unreadable(word: str) -> str:
    name, equals, value = word.partition("=")
    if not equals:
        return f"{word}: an option is written name=value, one with blanks 'name=a b', in quotes (see --help)"
    quoted = QuotedString(value, Quote.double).with_quotes()
    return f"{name}={value}: this value cannot be read; if it is text, quote it twice: '{name}={quoted}'"


NOISE = ("reference_type", "object_type", "Config search path", "provider=", "To append to your config")


def _one_line(error: Exception) -> str:
    """Return the message of Hydra or OmegaConf without footers and internal schema names."""
    lines = [line.strip() for line in str(error.__cause__ or error).splitlines() if line.strip()]
    kept = [line for line in lines if not line.startswith(NOISE) and not line.endswith("_schema")]
    return ", ".join(kept).replace("full_key: ", "at ").replace(":,", ":")


def _help(config: type, stage: str, name: str, groups: Mapping[str, type], text: str) -> str:
    lines = [
        text.strip(),
        "",
        f"Options (name=value; the files of a group lie in conf/{stage}):",
        *_options(config, ""),
    ]
    for option, schema in groups.items():
        lines += ["", f"With {option.replace('/', '=')}:", *_options(schema, option.split("/")[0] + ".")]
    for folder in sorted(path for path in (CONF / stage).iterdir() if path.is_dir()):
        if choices := ", ".join(_choices(config, stage, name, folder)):
            lines += ["", f"Group {folder.name}: {choices}"]
    lines += ["", "Quote a value once, for the shell: 'output=a (b), c'. A list is written name=a,b or 'name=[a,b]'."]
    lines += ["", "Hydra's own: --cfg job prints the composed configuration, --multirun sweeps, --hydra-help."]
    return "\n".join(lines)


def _choices(config: type, stage: str, name: str, folder: Path) -> list[str]:
    """Return the files of a group that the command takes: all of a default, otherwise those that set its options."""
    defaults = OmegaConf.load(CONF / stage / f"{name}.yaml").defaults
    chosen = {str(key).split()[-1] for entry in defaults if isinstance(entry, Mapping) for key in entry}
    paths, known = sorted(folder.glob("*.yaml")), {field.name for field in fields(config)}
    return [path.stem for path in paths if folder.name in chosen or _set_by(path) <= known]


def _set_by(path: Path) -> set[str]:
    """Return the names of the options that a file of a group sets, without those inside of them."""
    package = path.read_text().partition("\n")[0].removeprefix("# @package ")
    return {package} if package != "_global_" else {str(key) for key in OmegaConf.load(path)} - {"defaults"}


def _options(schema: type, prefix: str) -> list[str]:
    lines = []
    for field in fields(schema):
        default = _default(field)
        if is_dataclass(default) and not isinstance(default, type):
            lines += _options(type(default), f"{prefix}{field.name}.")
        else:
            shown = "" if default is MISSING or default == "???" else f"={_shown(default)}"
            lines.append(f"  {prefix}{field.name}{shown}".ljust(44) + f"  {field.metadata.get('help', '')}")
    return lines


def _default(item: Field[Any]) -> Any:
    return item.default if item.default_factory is MISSING else item.default_factory()


def _shown(default: Any) -> str:
    return "null" if default is None else str(default).lower() if isinstance(default, bool) else str(default)
