"""What a run's folder remembers of its configuration: `training.yaml`, and whether a command fits it."""

from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

from conf.options import UserError
from conf.overrides import renamed_options
from pipeline.storage import normalised, write_atomically
from training.config import FinetuneConfig
from training.distributed.topology import is_rank_zero

# How long, where and how fast a run is trained may change when it is continued; what it learns may not.
FREE = ("output", "trainer", "sample", "wandb", "ray", "mirror", "artifacts") + tuple(
    f"data.{name}" for name in ("batch_size", "workers", "cache_mb", "max_bad_rate")
)

PLACES = ("data.path", "model.pretrained", "model.image_encoder")


def continue_or_begin(output: Path, config: FinetuneConfig) -> None:
    """Write `output/training.yaml`.

    Raises:
        UserError: the folder belongs to a run of another configuration.
    """
    path, now = output / "training.yaml", as_dict(config)
    begun = any((output / name).exists() for name in ("checkpoints", "best", "model"))
    if begun and path.exists():
        before = _with_current_names(_flat(read_record(path)))
        for key, value in _flat(now).items():
            # An option that was not there yet says nothing about the run.
            if not key.startswith(FREE) and not _agree(key, before.get(key, value), value):
                raise UserError(
                    f"{output} was begun with {key}={before[key]}, not {value}; choose another output, or delete it"
                )
    output.mkdir(parents=True, exist_ok=True)
    if is_rank_zero():
        write_atomically(str(path), yaml.safe_dump(now, sort_keys=False, allow_unicode=True).encode())


def _with_current_names(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record's options by the names that they have now."""
    renamed = renamed_options([("", FinetuneConfig)])
    return {renamed.get(key, key): value for key, value in record.items()}


def recorded_model(output: Path) -> dict[str, Any]:
    """Return the options of the model that the run in a folder was begun with, none where there is no run."""
    path = output / "training.yaml"
    model = read_record(path).get("model") if path.exists() else None
    return model if isinstance(model, dict) else {}


def _agree(key: str, before: Any, now: Any) -> bool:
    """Whether an option has its earlier value. A folder or a URL may be written another way."""
    if key in PLACES and isinstance(before, str) and isinstance(now, str):
        return normalised(before) == normalised(now)
    return before == now


def trained_steps(output: Path) -> int:
    """How many steps the run's model has been trained for; 0 where there is none."""
    path = output / "model" / "training.yaml"
    return read_record(path)["trainer"]["max_steps"] if path.exists() else 0


def read_record(path: Path) -> dict[str, Any]:
    """A training.yaml. Raises UserError where it is none."""
    try:
        record = yaml.safe_load(path.read_text())
        assert isinstance(record["trainer"]["max_steps"], int)
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AssertionError) as error:
        raise UserError(f"{path} is no record of a run, or damaged; choose another output, or delete it") from error
    return record


def as_dict(config: FinetuneConfig) -> dict[str, Any]:
    return _plain(asdict(config))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.value if isinstance(value, Enum) else value


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
