"""The recorded configuration of a run, `training.yaml`, and whether a command may continue the run."""

from dataclasses import asdict, replace
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

from conf.options import UserError
from conf.overrides import renamed_options
from pipeline.storage import normalised, read_file, write_atomically
from training.config import FinetuneConfig
from training.data.sources import source_roots

# Options that may change when a run is resumed: length, location and speed, not the training itself.
CHANGEABLE = ("output", "trainer", "sample", "wandb", "ray", "mirror", "artifacts") + tuple(
    f"data.{name}" for name in ("batch_size", "workers", "cache_mb", "max_bad_rate")
)

PATH_OPTIONS = ("model.pretrained", "model.image_encoder")


def require_same_run(output: Path, config: FinetuneConfig) -> None:
    """Check that a command may continue the run in a folder, if there is one.

    Raises:
        UserError: The run there has another configuration.
    """
    path = output / "training.yaml"
    is_resumed = any((output / name).exists() for name in ("checkpoints", "best", "model"))
    if is_resumed and path.exists():
        _require_equal(read_record(path), config, "output", output)


def require_copy_of_run(mirror: str, config: FinetuneConfig) -> None:
    """Check that the copy of a run at a URL, if there is one, is that of a run which this command may continue.

    Raises:
        UserError: It is the copy of another run, or its record is damaged.
    """
    contents = read_file(f"{mirror}/training.yaml")
    if contents is not None:
        record = _parse(contents, f"{mirror}/training.yaml")
        pinned = replace(config, model=config.model.pinned(_model_of(record)))
        _require_equal(record, pinned, "mirror", mirror)


def record_run(output: Path, config: FinetuneConfig) -> None:
    """Write `training.yaml` to the folder of a run."""
    text = yaml.safe_dump(as_dict(config), sort_keys=False, allow_unicode=True)
    output.mkdir(parents=True, exist_ok=True)
    write_atomically(str(output / "training.yaml"), text.encode())


def _require_equal(record: dict[str, Any], config: FinetuneConfig, option: str, place: str | Path) -> None:
    """Raise UserError if a run's record at `place`, the value of `option`, differs in an option that may not change."""
    before = _with_current_names(_flat(record))
    for key, value in _flat(as_dict(config)).items():
        # A record of an earlier version may lack the option.
        if not key.startswith(CHANGEABLE) and not _equal(key, before.get(key, value), value):
            raise UserError(f"{key}={value}: the run in {place} has {key}={before[key]}; use that, or another {option}")


def _with_current_names(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record's options by the names that they have now."""
    renamed = renamed_options([("", FinetuneConfig)])
    return {renamed.get(key, key): value for key, value in record.items()}


def recorded_model(output: Path) -> dict[str, Any]:
    """Return the model options of the run in a folder, empty if there is no run."""
    path = output / "training.yaml"
    return _model_of(read_record(path)) if path.exists() else {}


def _model_of(record: dict[str, Any]) -> dict[str, Any]:
    model = record.get("model")
    return model if isinstance(model, dict) else {}


def _equal(key: str, before: Any, now: Any) -> bool:
    """Return whether two values of an option are equal; paths and URLs are normalised."""
    if key == "data.path" and isinstance(before, str):
        one, two = ([normalised(root) for root in source_roots(path)] for path in (before, now))
        return one == two
    if key == "data.weights" and isinstance(before, list):  # an empty list means 1 for each source
        return (before or [1.0] * len(now)) == (now or [1.0] * len(before))
    if key in PATH_OPTIONS and isinstance(before, str) and isinstance(now, str):
        return normalised(before) == normalised(now)
    return before == now


def trained_steps(output: Path) -> int:
    """Return the number of steps of the finished model in a run's folder, 0 if there is none."""
    path = output / "model" / "training.yaml"
    return read_record(path)["trainer"]["max_steps"] if path.exists() else 0


def read_record(path: Path) -> dict[str, Any]:
    """Read a `training.yaml`.

    Raises:
        UserError: It is damaged, or not the record of a run.
    """
    return _parse(path.read_bytes(), str(path))


def _parse(contents: bytes, place: str) -> dict[str, Any]:
    try:
        record = yaml.safe_load(contents)
        assert isinstance(record["trainer"]["max_steps"], int)
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AssertionError) as error:
        raise UserError(f"{place}: not the record of a run, or damaged; use another folder, or delete it") from error
    return record


def as_dict(config: FinetuneConfig) -> dict[str, Any]:
    """Return the configuration as plain values for YAML and W&B."""
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
